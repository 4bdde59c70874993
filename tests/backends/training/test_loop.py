"""Training with torch itself, on tiny random models of every architecture and on the default model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.onnx.config import Precision
from backends.onnx.convert import convert_decoder, convert_trained
from backends.onnx.convert.decoder_stored import StoredDecoder
from backends.training.examples import Example, Pair
from backends.training.plan import Plan, Preference, preference_plan, supervised_plan
from tests.backends.onnx.convert import architectures
from tests.backends.onnx.convert.architectures import CONFIGS, GOLDEN_ROWS, PROMPT
from tests.backends.onnx.convert.decoder import Decoder
from tests.backends.training.requests import DPO, LORA, QAT, preference, supervised

pytestmark = [
    pytest.mark.training,
    # peft asks transformers in a way that transformers will drop.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
try:
    import torch
except ImportError:  # then these tests are left out, by their mark
    torch = None

from backends.training.loop import Trainer, merged_state, preference_loss  # noqa: E402
from backends.training.model import TrainedDecoder, load_module  # noqa: E402

DRAW = np.random.default_rng(5)
EXAMPLES = [Example(tuple(DRAW.integers(0, 256, 24).tolist()), (False,) * 8 + (True,) * 16) for _ in range(8)]
PAIRS = [Pair(chosen, rejected) for chosen, rejected in zip(EXAMPLES[:4], EXAMPLES[4:], strict=True)]


def base(directory: Path, name: str, precision: Precision = "fp32") -> Path:
    source = architectures.write_folder(directory / "source", CONFIGS[name])
    convert_decoder(source, directory / "base", precision=precision)
    return directory / "base"


def trainer(model: Path, plan: Plan, examples: Any = EXAMPLES, stepped: Any = lambda *_: None) -> Trainer:
    return Trainer(load_module(model, "cpu"), plan, examples, examples[:2], stepped)


def trained(model: Path, plan: Plan, target: Path, examples: Any = EXAMPLES) -> tuple[list[float], Path]:
    """The validation loss before and after each epoch, and the directory of the trained model."""
    running = trainer(model, plan, examples)
    losses = [running.validate(), *(running.epoch(epoch).validation_loss for epoch in range(plan.training.n_epochs))]
    state = merged_state(running.module, plan, lambda: load_module(model, "cpu"))
    convert_trained(model, TrainedDecoder(StoredDecoder(model).shape, state), target, precision="fp32")
    return [loss for loss in losses if loss is not None], target


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_module_computes_what_the_graph_computes(tmp_path: Path, name: str, precision: Precision) -> None:
    model = base(tmp_path, name, precision)
    expected = Decoder(model, max_len=64).run([PROMPT], [0], list(GOLDEN_ROWS))
    with torch.no_grad():
        found = load_module(model, "cpu")(input_ids=torch.tensor([PROMPT])).logits[0, list(GOLDEN_ROWS)].numpy()
    tolerance = 1e-5 if precision == "fp32" else 4e-2  # the graph rounds activations too
    assert np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()) < tolerance


@pytest.mark.parametrize(
    "algorithm",
    [
        LORA,
        {**LORA, "apply_lora_to_output": True},
        {**LORA, "use_dora": True},
        {**LORA, "quantize_base": True},
        QAT,
        {**QAT, "quantizer_name": "int4"},
        None,
    ],
    ids=["lora", "lora with its head", "dora", "quantised base", "qat int8", "qat int4", "all weights"],
)
@pytest.mark.parametrize("name", ["llama", "qwen2", "phi3"])
def test_each_algorithm_learns_and_its_graph_is_the_module(
    tmp_path: Path, name: str, algorithm: dict[str, Any] | None
) -> None:
    model = base(tmp_path, name)
    plan = supervised_plan(supervised(algorithm, n_epochs=3, optimizer_config__lr=0.003))
    losses, target = trained(model, plan, tmp_path / "out")
    assert losses[-1] < losses[0]
    ids = list(EXAMPLES[0].tokens)
    logits = Decoder(target, max_len=64).all_logits(ids)
    before = Decoder(model, max_len=64).all_logits(ids)
    assert likelihood(logits, ids) > likelihood(before, ids)


def likelihood(logits: np.ndarray, ids: list[int]) -> float:
    shifted = logits - logits.max(-1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return float(sum(log[i, token] for i, token in enumerate(ids[1:])))


def test_an_attempt_that_goes_on_from_a_state_does_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    model, plan = base(tmp_path, "llama"), supervised_plan(supervised(n_epochs=3))
    whole = trainer(model, plan)
    expected = [whole.epoch(epoch) for epoch in range(3)]
    first = trainer(model, plan)
    for epoch in range(2):
        first.epoch(epoch)
    first.save(tmp_path / "state.pt")
    second = trainer(model, plan)
    second.restore(tmp_path / "state.pt")
    assert second.epoch(2) == expected[2]


def test_pairs_teach_to_prefer_the_chosen_answer(tmp_path: Path) -> None:
    model = base(tmp_path, "llama")
    plan = preference_plan(preference(n_epochs=4, optimizer_config__lr=0.003))
    losses, target = trained(model, plan, tmp_path / "out", PAIRS)
    assert losses[0] == pytest.approx(np.log(2), abs=1e-4)
    assert losses[-1] < losses[0]

    def gain(pair: Pair, directory: Path) -> float:
        decoder = Decoder(directory, max_len=64)
        chosen, rejected = list(pair.chosen.tokens), list(pair.rejected.tokens)
        return likelihood(decoder.all_logits(chosen), chosen) - likelihood(decoder.all_logits(rejected), rejected)

    assert sum(gain(pair, target) - gain(pair, model) for pair in PAIRS) > 0


def test_every_member_of_a_preference_changes_the_loss() -> None:
    gains = torch.tensor([3.0, 1.0, -2.0, 0.5])
    plain = Preference(beta=0.5, clip=np.inf, smoothing=0.0, margin=0.0)
    difference = np.array([2.5, 0.25])
    assert float(preference_loss(gains, plain)) == pytest.approx(np.log1p(np.exp(-difference)).mean())
    clipped = Preference(beta=0.5, clip=1.0, smoothing=0.0, margin=0.0)
    assert float(preference_loss(gains, clipped)) == pytest.approx(np.log1p(np.exp(-np.minimum(difference, 1))).mean())
    margin = Preference(beta=0.5, clip=np.inf, smoothing=0.0, margin=1.0)
    assert float(preference_loss(gains, margin)) == pytest.approx(np.log1p(np.exp(1 - difference)).mean())
    smoothed = Preference(beta=0.5, clip=np.inf, smoothing=0.2, margin=0.0)
    expected = 0.8 * np.log1p(np.exp(-difference)) + 0.2 * np.log1p(np.exp(difference))
    assert float(preference_loss(gains, smoothed)) == pytest.approx(expected.mean())
    assert DPO["reward_scale"] == plain.beta


def test_steps_are_bounded_accumulated_and_reported(tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    plan = supervised_plan(supervised(max_steps_per_epoch=1, gradient_accumulation_steps=2, n_epochs=2))
    running = trainer(base(tmp_path, "llama"), plan, stepped=lambda *step: seen.append(step[:3]))
    for epoch in range(2):
        running.epoch(epoch)
    assert seen == [(0, 1, 1), (1, 1, 1)]


def test_activation_checkpointing_changes_memory_and_not_the_result(tmp_path: Path) -> None:
    model = base(tmp_path, "llama")
    plain = trainer(model, supervised_plan(supervised())).epoch(0)
    saving = trainer(
        model, supervised_plan(supervised(efficiency_config={"enable_activation_checkpointing": True}))
    ).epoch(0)
    assert saving.train_loss == pytest.approx(plain.train_loss, rel=1e-5)
