"""The default shield's decision, on scripted probabilities; on its real model it is tested over HTTP."""

from __future__ import annotations

import pytest

from backends.context import CallContext
from backends.errors import BadRequest
from backends.safety.guardian import GuardianSafety, GuardianSettings
from generated.models import SystemMessage, UserMessage
from tests.backends.safety.scripted import ScriptedClassifier, ScriptedModels, shield

ROWS = {"bad": (0.1, 0.3, 0.6), "worse": (0.05, 0.9, 0.05), "odd": (0.3, 0.3, 0.4)}


@pytest.fixture
def safety() -> GuardianSafety:
    classifier = ScriptedClassifier(("benign", "pii", "jailbreak"), ROWS)
    return GuardianSafety(GuardianSettings(), ScriptedModels(None, classifier))


@pytest.mark.parametrize(
    ("texts", "metadata"),
    [
        (["fine"], None),
        (["odd"], None),
        (["bad"], {"violation_type": "jailbreak", "score": 0.9}),
        (["fine", "bad", "worse", "fine"], {"violation_type": "pii", "score": 0.95}),
    ],
)
def test_the_worst_message_decides(
    safety: GuardianSafety, context: CallContext, texts: list[str], metadata: dict[str, object] | None
) -> None:
    violation = safety.run(context, shield(), [UserMessage(content=text) for text in texts], {})
    assert (violation and violation.metadata) == metadata


def test_a_conversation_of_system_messages_alone_holds_nothing_to_judge(
    safety: GuardianSafety, context: CallContext
) -> None:
    assert safety.run(context, shield(), [SystemMessage(content="bad")], {"threshold": 0.01}) is None


@pytest.mark.parametrize("threshold", [0, 1.1, "x", None])
def test_a_threshold_that_is_no_probability_is_refused(
    safety: GuardianSafety, context: CallContext, threshold: object
) -> None:
    with pytest.raises(BadRequest) as caught:
        safety.check(context, shield(threshold=threshold))
    assert caught.value.where == "/params/threshold"
