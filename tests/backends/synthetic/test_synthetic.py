"""Synthetic data on the in-memory generator, which answers with its prompt and is sure of it."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from backends.config import INPROC, BackendSettings, EngineSettings, ProviderSettings, SyntheticSettings
from backends.context import CallContext
from backends.errors import BadRequest, UnknownReference, Unsupported
from backends.models.catalog import DEFAULT_LLM
from backends.models.store import ModelStore
from backends.stack import open_backends
from backends.synthetic.filtering import kept
from generated.models import RegisterModelRequest, SystemMessage, UserMessage

SCORES = [0.0, 3.0, -2.0, 2.0]


@pytest.mark.parametrize(
    ("function", "expected"),
    [("none", [0, 1, 2, 3]), ("top_k", [1, 3]), ("top_p", [1, 3]), ("top_k_top_p", [1, 3])],
)
def test_filters_keep_the_best_in_their_order(function: Any, expected: list[int]) -> None:
    assert kept(SCORES, function, SyntheticSettings(), random.Random(0)) == expected


def test_top_p_keeps_the_fewest_that_hold_the_mass() -> None:
    share = 1 / (1 + math.exp(-1) + math.exp(-3) + math.exp(-5))
    for top_p, expected in ((share - 0.01, [1]), (share + 0.01, [1, 3]), (1.0, [0, 1, 2, 3])):
        assert kept(SCORES, "top_p", SyntheticSettings(top_p=top_p), random.Random(0)) == expected
    both = SyntheticSettings(top_p=1.0, keep=3)
    assert kept(SCORES, "top_k_top_p", both, random.Random(0)) == [0, 1, 3]


def test_random_keeps_a_repeatable_sample() -> None:
    samples = {tuple(kept(SCORES, "random", SyntheticSettings(), random.Random(seed))) for seed in range(50)}
    assert {len(sample) for sample in samples} == {2}
    assert len(samples) == 6
    once, again = (kept(SCORES, "random", SyntheticSettings(), random.Random(7)) for _ in range(2))
    assert once == again


def test_sigmoid_keeps_with_the_probability_of_the_score() -> None:
    draw, count = random.Random(0), 4000
    scores = [1.0] * count
    share = len(kept(scores, "sigmoid", SyntheticSettings(), draw)) / count
    assert share == pytest.approx(1 / (1 + math.exp(-1)), abs=0.03)
    assert kept([1e6, -1e6], "sigmoid", SyntheticSettings(), draw) == [0]


@pytest.mark.parametrize("function", ["none", "random", "top_k", "top_p", "top_k_top_p", "sigmoid"])
def test_no_candidates_stay_none(function: Any) -> None:
    assert kept([], function, SyntheticSettings(), random.Random(0)) == []


def generate(
    tmp_path: Path, context: CallContext, dialogs: Any, function: Any, model: str | None, **settings: Any
) -> Any:
    providers = (ProviderSettings(api="inference", provider_id="memory", provider_type="inline::memory"),)
    stack = open_backends(
        BackendSettings(
            data_dir=tmp_path,
            database_url="memory://",
            providers=providers,
            synthetic=SyntheticSettings(candidates=3, **settings),
        )
    )
    try:
        stack.models.register(context, RegisterModelRequest(model_id="m"))
        return stack.synthetic.generate(context, dialogs, function, model)
    finally:
        stack.close()


DIALOGS = [SystemMessage(content="s"), UserMessage(content="one"), UserMessage(content="rated 7 of old")]


def test_each_user_message_is_a_prompt_with_its_candidates(tmp_path: Path, context: CallContext) -> None:
    answer = generate(tmp_path, context, DIALOGS, "top_k", "m")
    assert [(row["prompt"], row["response"]) for row in answer.synthetic_data] == [
        (text, text) for text in ("one", "one", "rated 7 of old", "rated 7 of old")
    ]
    assert all(row["score"] == pytest.approx(0, abs=1e-3) for row in answer.synthetic_data)
    assert answer.statistics == {
        "num_prompts": 2,
        "num_generated": 6,
        "num_kept": 4,
        "num_filtered_out": 2,
        "kept_per_prompt": [2, 2],
    }


def test_what_cannot_be_generated_is_refused(tmp_path: Path, context: CallContext) -> None:
    with pytest.raises(BadRequest, match="at least one user message"):
        generate(tmp_path, context, DIALOGS[:1], "none", "m")
    with pytest.raises(UnknownReference, match="absent"):
        generate(tmp_path, context, DIALOGS, "none", "absent")
    with pytest.raises(UnknownReference, match="no/judge"):
        generate(tmp_path, context, DIALOGS, "none", "m", judge_model="no/judge")


def test_a_judge_of_the_settings_rates_every_candidate(
    tmp_path: Path, context: CallContext, model_store: ModelStore
) -> None:
    """Whatever the small model thinks of them, all that it can say is a rating."""
    inference = ProviderSettings(api="inference", provider_id="onnx", provider_type="inline::onnx")
    settings = BackendSettings(
        data_dir=tmp_path,
        database_url="memory://",
        models_dir=model_store.root,
        engine=EngineSettings(address=INPROC),
        providers=(inference,),
        synthetic=SyntheticSettings(candidates=3, max_tokens=8, judge_model=DEFAULT_LLM),
    )
    stack = open_backends(settings)
    try:
        stack.models.register(context, RegisterModelRequest(model_id=DEFAULT_LLM))
        answer = stack.synthetic.generate(context, DIALOGS[1:], "none", DEFAULT_LLM)
    finally:
        stack.close()
    assert [row["prompt"] for row in answer.synthetic_data] == ["one"] * 3 + ["rated 7 of old"] * 3
    assert {row["score"] for row in answer.synthetic_data} <= {float(rating) for rating in range(1, 11)}
    assert answer.statistics["num_kept"] == 6


def test_a_judge_that_cannot_be_held_to_a_rating_is_refused(tmp_path: Path, context: CallContext) -> None:
    with pytest.raises(Unsupported, match="cannot be constrained"):
        generate(tmp_path, context, DIALOGS[:2], "none", "m", judge_model="m")
