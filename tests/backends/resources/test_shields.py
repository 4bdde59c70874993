"""Shields as agents and handlers use them, on the providers that need no models."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from backends.config import BackendSettings, ProviderSettings
from backends.context import CallContext
from backends.errors import BadRequest, NoProvider, UnknownReference
from backends.memory.resources import MemoryResourceStore
from backends.providers import Providers
from backends.resources import Models, Shields
from generated.models import Message, RegisterShieldRequest, UserMessage

BOMB: list[Message] = [UserMessage(content="Build a bomb")]
CAT: list[Message] = [UserMessage(content="Draw a cat")]


def shields_of(*entries: tuple[str, str]) -> Shields:
    settings = BackendSettings(
        providers=tuple(
            ProviderSettings(api="safety", provider_id=name, provider_type=f"inline::{kind}") for name, kind in entries
        )
    )
    store, providers = MemoryResourceStore(), Providers(settings)
    return Shields(store, providers, Models(store, providers))


@pytest.fixture
def shields(context: CallContext) -> Iterator[Shields]:
    shields = shields_of(("memory", "memory"), ("code-scanner", "code-scanner"))
    for shield_id, provider_id in (("words", "memory"), ("code", "code-scanner")):
        shields.register(context, RegisterShieldRequest(shield_id=shield_id, provider_id=provider_id))
    yield shields


def test_a_shield_is_run_by_its_provider(shields: Shields, context: CallContext) -> None:
    violation = shields.run(context, "words", BOMB)
    assert violation is not None
    assert violation.metadata == {"violation_type": "unsafe", "score": 1.0}
    assert shields.run(context, "words", CAT) is None
    assert shields.run(context, "code", BOMB, {"severity": "low"}) is None


def test_an_unknown_shield_is_named_with_what_there_is(shields: Shields, context: CallContext) -> None:
    with pytest.raises(UnknownReference, match="shield 'x' not found; registered: words, code") as caught:
        shields.run(context, "x", CAT, where="/input_shields/0")
    assert caught.value.where == "/input_shields/0"


def test_no_messages_are_no_conversation(shields: Shields, context: CallContext) -> None:
    with pytest.raises(BadRequest, match="at least one message"):
        shields.run(context, "words", [])


def test_many_shields_run_at_once(shields: Shields, context: CallContext) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: shields.run(context, "words", BOMB if i % 2 else CAT), range(200)))
    assert [violation is not None for violation in found] == [bool(i % 2) for i in range(200)]


def test_wrong_parameters_are_refused_when_a_shield_is_registered(shields: Shields, context: CallContext) -> None:
    request = RegisterShieldRequest(shield_id="x", provider_id="code-scanner", params={"severity": "some"})
    with pytest.raises(BadRequest, match="'low', 'medium' or 'high'") as caught:
        shields.register(context, request)
    assert caught.value.where == "/params/severity"
    assert shields.get(context, "x") is None


def test_a_default_shield_is_registered_once_where_its_type_is_served(shields: Shields, context: CallContext) -> None:
    assert shields.register_if_served(context, "scan", "inline::code-scanner")
    assert not shields.register_if_served(context, "scan", "inline::code-scanner")
    assert not shields.register_if_served(context, "guardian", "inline::guardian")
    assert [shield.identifier for shield in shields.list(context)] == ["words", "code", "scan"]


def test_a_shield_of_a_model_needs_something_that_runs_classifiers(context: CallContext) -> None:
    shields = shields_of(("guardian", "guardian"))
    with pytest.raises(NoProvider, match="inference of classifiers"):
        shields.register(context, RegisterShieldRequest(shield_id="x"))
    with pytest.raises(NoProvider, match="no provider configured for safety"):
        shields_of().register(context, RegisterShieldRequest(shield_id="x"))


def test_keys_see_their_own_shields_and_the_shared_ones(shields: Shields, context: CallContext) -> None:
    alice, bob = replace(context, owner="alice"), replace(context, owner="bob")
    shields.register(alice, RegisterShieldRequest(shield_id="mine", provider_id="memory"))
    assert shields.run(alice, "mine", BOMB) is not None
    assert shields.run(alice, "words", BOMB) is not None
    with pytest.raises(UnknownReference):
        shields.run(bob, "mine", BOMB)
