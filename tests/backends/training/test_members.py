"""docs/post-training.md says of every member of a fine-tuning request whether it acts, is refused, or is inert."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCHEMAS = (
    "SupervisedFineTuneRequest",
    "PreferenceOptimizeRequest",
    "TrainingConfig",
    "DataConfig",
    "OptimizerConfig",
    "EfficiencyConfig",
    "LoraFinetuningConfig",
    "QATFinetuningConfig",
    "DPOAlignmentConfig",
    "CancelTrainingJobRequest",
)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_member_is_accounted_for_once(schema: str) -> None:
    page = (ROOT / "docs" / "post-training.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(f"| `{schema}` |"))
    acts, refused, inert = (re.findall(r"`(\w+)`", cell) for cell in row.split("|")[2:5])
    told = [*acts, *refused, *inert]
    members = json.loads((ROOT / "generated" / "schemas.json").read_text())["$defs"][schema]["properties"]
    assert sorted(told) == sorted(members)
