from __future__ import annotations

from pathlib import Path

import pytest

from backends.config import BackendSettings, ProviderSettings
from backends.context import CallContext
from backends.errors import BadRequest, Forbidden, NoProvider, NotFound, UnknownReference
from backends.memory.embedder import MemoryEmbedder
from backends.memory.generator import MemoryTextGenerator
from backends.memory.resources import MemoryResourceStore
from backends.providers import Provider, Providers
from backends.resources import Models
from backends.stack import Backends, open_backends
from generated.models import Model, RegisterModelRequest
from tests.backends.resources.conftest import settings_of


def request(model_id: str = "m", **members: object) -> RegisterModelRequest:
    return RegisterModelRequest.model_validate({"model_id": model_id, **members})


@pytest.fixture
def closed_shop() -> Models:
    """A provider that knows one model of each type."""
    provider = Provider(
        "inference",
        "p",
        "inline::test",
        generator=MemoryTextGenerator(["llm-1"]),
        embedder=MemoryEmbedder(["embed-1"], dimension=8),
        models=lambda kind: ["llm-1"] if kind == "llm" else ["embed-1"],
    )
    settings = BackendSettings(
        providers=(ProviderSettings(api="inference", provider_id="p", provider_type="inline::test"),)
    )
    return Models(
        MemoryResourceStore(), Providers(settings, {("inference", "inline::test"): lambda _settings, _entry: provider})
    )


def test_what_a_request_leaves_out_is_filled(stack: Backends, context: CallContext) -> None:
    expected = Model(
        identifier="org/m::1", provider_id="memory", provider_resource_id="org/m::1", metadata={}, model_type="llm"
    )
    assert stack.models.register(context, request("org/m::1")) == expected
    assert stack.models.get(context, "org/m::1") == expected


def test_registering_the_same_again_changes_nothing(stack: Backends, context: CallContext) -> None:
    before = stack.models.list(context)
    first = stack.models.register(context, request(metadata={"a": [1, None]}))
    assert stack.models.register(context, request(metadata={"a": [1, None]})) == first
    assert stack.models.list(context) == [*before, first]


def test_registering_other_content_replaces_the_model_in_its_place(stack: Backends, context: CallContext) -> None:
    for name in ("m", "n"):
        stack.models.register(context, request(name, metadata={"old": 1}))
    new = stack.models.register(context, request("m", metadata={"new": 2}, provider_model_id="other"))
    assert (new.metadata, new.provider_resource_id) == ({"new": 2}, "other")
    assert stack.models.get(context, "m") == new
    assert [model.identifier for model in stack.models.list(context)][-2:] == ["m", "n"]


def test_an_embedding_model_gets_its_dimension_from_the_provider(closed_shop: Models, context: CallContext) -> None:
    model = closed_shop.register(context, request("embed-1", model_type="embedding", metadata={"a": 1}))
    assert model.metadata == {"a": 1, "embedding_dimension": 8}


@pytest.mark.parametrize("dimension", [7, 0, -8, "8", 8.0, True, [8]])
def test_a_dimension_that_is_not_the_models_is_refused(
    closed_shop: Models, context: CallContext, dimension: object
) -> None:
    with pytest.raises(BadRequest, match="embedding_dimension") as refused:
        closed_shop.register(
            context, request("embed-1", model_type="embedding", metadata={"embedding_dimension": dimension})
        )
    assert refused.value.where == "/metadata/embedding_dimension"
    assert closed_shop.list(context) == []


@pytest.mark.parametrize(("model_type", "there"), [("llm", "llm-1"), ("embedding", "embed-1")])
def test_a_model_that_the_provider_has_not_is_refused_with_those_it_has(
    closed_shop: Models, context: CallContext, model_type: str, there: str
) -> None:
    with pytest.raises(BadRequest, match=f"has no model 'x' of type {model_type}; available: {there}") as refused:
        closed_shop.register(context, request("mine", provider_model_id="x", model_type=model_type))
    assert refused.value.where == "/provider_model_id"
    closed_shop.register(context, request("mine", provider_model_id=there, model_type=model_type))


def test_an_unknown_model_is_none_and_cannot_be_unregistered(stack: Backends, context: CallContext) -> None:
    assert stack.models.get(context, "nobody") is None
    with pytest.raises(NotFound, match="'nobody'"):
        stack.models.unregister(context, "nobody")


def test_an_unregistered_model_is_gone(stack: Backends, context: CallContext) -> None:
    stack.models.register(context, request())
    stack.models.unregister(context, "m")
    assert stack.models.get(context, "m") is None
    with pytest.raises(UnknownReference):
        stack.models.generator(context, "m")


def test_calls_reach_the_provider_under_its_own_name_of_the_model(closed_shop: Models, context: CallContext) -> None:
    closed_shop.register(context, request("talk", provider_model_id="llm-1"))
    closed_shop.register(context, request("vec", provider_model_id="embed-1", model_type="embedding"))
    generator, name = closed_shop.generator(context, "talk")
    assert (type(generator), name) == (MemoryTextGenerator, "llm-1")
    embedder, name, dimension, provider_id = closed_shop.embedder(context, "vec")
    assert (type(embedder), name, dimension) == (MemoryEmbedder, "embed-1", 8)
    assert provider_id == closed_shop.get(context, "vec").provider_id  # type: ignore[union-attr]


def test_an_unknown_model_in_a_call_is_answered_with_the_registered_ones(
    closed_shop: Models, context: CallContext
) -> None:
    with pytest.raises(UnknownReference, match="model 'x' not found; registered: none"):
        closed_shop.generator(context, "x")
    closed_shop.register(context, request("talk", provider_model_id="llm-1"))
    with pytest.raises(UnknownReference, match="registered: talk") as refused:
        closed_shop.embedder(context, "x", where="/model")
    assert refused.value.where == "/model"


def test_a_model_of_the_other_type_is_refused_by_both_types(closed_shop: Models, context: CallContext) -> None:
    closed_shop.register(context, request("llm-1"))
    closed_shop.register(context, request("embed-1", model_type="embedding"))
    with pytest.raises(BadRequest, match="is of type embedding, this needs one of type llm"):
        closed_shop.generator(context, "embed-1")
    with pytest.raises(BadRequest, match="is of type llm, this needs one of type embedding"):
        closed_shop.embedder(context, "llm-1")


def test_without_a_provider_nothing_can_be_registered(tmp_path: Path, context: CallContext) -> None:
    stack = open_backends(settings_of(tmp_path, "memory://", apis=()))
    with pytest.raises(NoProvider, match="no provider configured for inference"):
        stack.models.register(context, request())
    stack.close()


@pytest.mark.parametrize("model_id", ["", "a\x00", "x" * 513])
def test_an_id_that_cannot_be_kept_is_refused(stack: Backends, context: CallContext, model_id: str) -> None:
    with pytest.raises(BadRequest) as refused:
        stack.models.register(context, request(model_id))
    assert refused.value.where == "/model_id"


def test_default_models_come_by_themselves_and_a_changed_one_stays_changed(
    tmp_path: Path, context: CallContext
) -> None:
    settings = settings_of(tmp_path)
    stack = open_backends(settings)
    assert [(model.identifier, model.model_type) for model in stack.models.list(context)] == [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "llm"),
        ("all-MiniLM-L6-v2", "embedding"),
    ]
    found = stack.models.get(context, "all-MiniLM-L6-v2")
    assert found is not None
    assert found.metadata == {"embedding_dimension": 384}
    changed = stack.models.register(context, request("all-MiniLM-L6-v2", model_type="embedding", metadata={"a": 1}))
    stack.close()
    stack = open_backends(settings)
    assert stack.models.get(context, "all-MiniLM-L6-v2") == changed
    stack.close()


def test_default_models_that_no_provider_has_are_left_out(closed_shop: Models, context: CallContext) -> None:
    assert not closed_shop.register_if_served(context, "absent", "llm")
    assert not closed_shop.register_if_served(context, "absent", "embedding")
    assert closed_shop.register_if_served(context, "llm-1", "llm")
    assert not closed_shop.register_if_served(context, "llm-1", "llm")
    assert [model.identifier for model in closed_shop.list(context)] == ["llm-1"]


def test_models_of_one_key_are_hidden_from_another_and_the_shared_ones_are_not(stack: Backends) -> None:
    alice, bob = CallContext(request_id="a", owner="alice"), CallContext(request_id="b", owner="bob")
    shared = [model.identifier for model in stack.models.list(bob)]
    stack.models.register(alice, request("hers"))
    assert [model.identifier for model in stack.models.list(alice)] == [*shared, "hers"]
    assert [model.identifier for model in stack.models.list(bob)] == shared
    assert stack.models.generator(bob, shared[0])[1] == shared[0]
    with pytest.raises(UnknownReference):
        stack.models.generator(bob, "hers")
    with pytest.raises(NotFound):
        stack.models.unregister(bob, "hers")
    with pytest.raises(Forbidden, match="is shared by all keys; with isolation per_key a key removes only its own"):
        stack.models.unregister(bob, shared[0])
    assert [model.identifier for model in stack.models.list(bob)] == shared
