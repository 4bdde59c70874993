"""Make `logits.npz`: what transformers computes of the tiny models in `tests/backends/onnx/convert/architectures.py`.

Run in the tox env `export`, from the root of the checkout (`test_transformers.py` there says when it is out of date):

    tox exec -e export -- python -m tests.backends.onnx.convert.golden.make_logits

For each architecture: `<name>/logits` float32 [3, vocab] after the tokens `GOLDEN_ROWS` of the prompt, and
`<name>/answer` int64 [16], the greedy continuation.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.backends.onnx.convert.architectures import ANSWER_TOKENS, CONFIGS, GOLDEN_ROWS, PROMPT, write_folder

OUT = Path(__file__).with_name("logits.npz")


def load(folder: Path) -> Any:
    """The model of a Hugging Face folder in transformers, float32, attention without fused kernels."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def logits(model: Any, ids: list[int]) -> NDArray[np.float32]:
    """Logits after every token, float32 [tokens, vocab]."""
    import torch

    with torch.no_grad():
        found: NDArray[np.float32] = model(torch.tensor([ids])).logits[0].float().numpy()
    return found


def answer(model: Any, prompt: list[int], count: int) -> NDArray[np.int64]:
    """The greedy continuation of exactly `count` tokens."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(logits(model, ids)[-1].argmax()))
    return np.array(ids[len(prompt) :], np.int64)


def golden() -> dict[str, NDArray[Any]]:
    """Everything that belongs into the file."""
    made: dict[str, NDArray[Any]] = {}
    for name, config in CONFIGS.items():
        with tempfile.TemporaryDirectory() as directory:
            model = load(write_folder(Path(directory) / "model", config))
        made[f"{name}/logits"] = logits(model, PROMPT)[list(GOLDEN_ROWS)]
        made[f"{name}/answer"] = answer(model, PROMPT, ANSWER_TOKENS)
    return made


if __name__ == "__main__":
    np.savez_compressed(OUT, **golden())
