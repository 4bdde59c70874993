"""Prompt Guard's protocol, tested with scripted probabilities: its weights are not to be had here."""

from __future__ import annotations

import pytest

from backends.context import CallContext
from backends.errors import BadRequest, UnknownReference
from backends.safety.prompt_guard import PromptGuardSafety, PromptGuardSettings
from generated.models import CompletionMessage, Message, SystemMessage, ToolResponseMessage, UserMessage
from tests.backends.safety.scripted import ScriptedClassifier, ScriptedModels, shield

LABELS = ("benign", "injection", "jailbreak")
ROWS = {"inject": (0.04, 0.9, 0.06), "jail": (0.05, 0.03, 0.92), "odd": (0.2, 0.4, 0.4)}


def guard(**settings: object) -> tuple[PromptGuardSafety, ScriptedClassifier]:
    classifier = ScriptedClassifier(LABELS, ROWS)
    return PromptGuardSafety(PromptGuardSettings.model_validate(settings), ScriptedModels(None, classifier)), classifier


@pytest.mark.parametrize(
    ("text", "guard_type", "found"),
    [
        ("hello", "injection", None),
        ("odd", "injection", None),
        ("inject", "injection", "injection"),
        ("jail", "injection", "jailbreak"),
        ("inject", "jailbreak", None),
        ("jail", "jailbreak", "jailbreak"),
    ],
)
def test_attacks_of_the_chosen_kind_are_violations(
    context: CallContext, text: str, guard_type: str, found: str | None
) -> None:
    violation = guard(guard_type=guard_type)[0].run(context, shield(), [UserMessage(content=text)], {})
    assert (violation and violation.metadata["violation_type"]) == found
    if violation is not None:
        assert violation.user_message == "Sorry, I cannot do this."
        assert set(violation.metadata) == {"violation_type", "score"}


def test_the_threshold_of_a_run_goes_before_that_of_the_shield(context: CallContext) -> None:
    safety, _ = guard()
    assert safety.run(context, shield(threshold=0.7), [UserMessage(content="odd")], {}) is not None
    assert safety.run(context, shield(threshold=0.7), [UserMessage(content="odd")], {"threshold": 0.85}) is None


def test_what_came_in_since_the_assistant_spoke_is_judged(context: CallContext) -> None:
    answer = CompletionMessage(content="jail", stop_reason="end_of_turn")
    messages: list[Message] = [
        SystemMessage(content="jail"),
        UserMessage(content="inject"),
        answer,
        ToolResponseMessage(call_id="1", tool_name="search", content="found"),
        UserMessage(content="hello", context="more"),
    ]
    safety, classifier = guard()
    assert safety.run(context, shield(), messages, {}) is None
    assert classifier.texts == ["found", "hello\nmore"]
    assert safety.run(context, shield(), [*messages, answer], {}) is not None
    assert classifier.texts[2:] == ["jail"]


def test_a_model_with_other_labels_is_no_prompt_guard(context: CallContext) -> None:
    safety = PromptGuardSafety(PromptGuardSettings(), ScriptedModels(None, ScriptedClassifier(("safe", "spam"), {})))
    with pytest.raises(BadRequest, match="labels safe, spam; a prompt guard has safe, injection and jailbreak"):
        safety.check(context, shield())


def test_a_model_that_is_not_there_is_named(context: CallContext) -> None:
    with pytest.raises(UnknownReference, match="missing"):
        guard()[0].check(context, shield(resource_id="missing"))
