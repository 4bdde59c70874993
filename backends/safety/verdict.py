"""From a classifier's probabilities to a violation."""

from __future__ import annotations

from collections.abc import Collection

from backends.inference import ClassifyResult
from generated.models import SafetyViolation


def classifier_violation(
    result: ClassifyResult, *, threshold: float, user_message: str, harmless: Collection[str] = ()
) -> SafetyViolation | None:
    """The violation of the worst text, None where none reaches `threshold`.

    A text's score is the probability of all labels but the benign one and those in `harmless`. `metadata` tells the
    likeliest of these labels and the score, never the text.
    """
    counted = [i for i, label in enumerate(result.labels) if label != result.benign and label not in harmless]
    worst = max(result.scores, key=lambda row: sum(row[i] for i in counted), default=None)
    if worst is None:
        return None
    score = sum(worst[i] for i in counted)
    if score < threshold:
        return None
    likeliest = max(counted, key=worst.__getitem__)
    metadata = {"violation_type": result.labels[likeliest], "score": round(score, 4)}
    return SafetyViolation(violation_level="error", user_message=user_message, metadata=metadata)
