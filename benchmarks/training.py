"""Seconds of one fine-tuning step beside trl's `SFTTrainer`, on the same weights, examples, batch and LoRA adapters.

`python -m benchmarks.training [--repeat N] [--steps N] [--threads N] [--json FILE]`; needs the extra [training] and the
dependency group `bench-training`. Sides take turns, each with a fresh module; the first step of each turn is left out.
trl computes in float32 without checkpointing, as ours does.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from backends.models.store import ModelStore
from backends.training.examples import Example
from backends.training.plan import Lora, Plan, supervised_plan
from benchmarks.report import Row, show
from benchmarks.sides import LLM
from generated.models import SupervisedFineTuneRequest

BATCH = 4
TOKENS = 96
ANSWER = 32
"""Tokens of an example that are learnt."""


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="turns of each side (default 3)")
    parser.add_argument("--steps", type=int, default=6, help="steps of a turn (default 6)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/onnxstack-bench").expanduser())
    parser.add_argument("--json", type=Path, default=None, help="also write all samples to this file")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # of both sides, as jobs of the server have it
    import torch

    torch.set_num_threads(options.threads)
    store = ModelStore(options.cache / "models")
    store.pull(LLM)
    show(measure(store.path(LLM), repeat=options.repeat, steps=options.steps), options.json)


def measure(model: Path, *, repeat: int, steps: int) -> list[Row]:
    """Seconds per step."""
    draw = np.random.default_rng(7)
    learnt = (False,) * (TOKENS - ANSWER) + (True,) * ANSWER
    examples = [Example(tuple(draw.integers(10, 49_000, TOKENS).tolist()), learnt) for _ in range(BATCH * steps)]
    row = Row(f"LoRA step, {BATCH} x {TOKENS} tokens", "s", [], "trl SFTTrainer", goal="<= 1.1x")
    for _ in range(repeat):
        row.ours += _ours(model, examples)[1:]
        row.peer += _trl(model, examples, steps)[1:]
    return [row]


def _plan() -> Plan:
    body: dict[str, Any] = {
        "job_uuid": "bench",
        "hyperparam_search_config": {},
        "logger_config": {},
        "algorithm_config": {
            "type": "LoRA",
            "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
            "apply_lora_to_mlp": True,
            "apply_lora_to_output": False,
            "rank": 16,
            "alpha": 32,
        },
        "training_config": {
            "n_epochs": 1,
            "max_steps_per_epoch": 0,
            "gradient_accumulation_steps": 1,
            "max_validation_steps": 0,
            "dtype": "fp32",
            "data_config": {"dataset_id": "d", "batch_size": BATCH, "shuffle": False, "data_format": "instruct"},
            "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-4, "weight_decay": 0.01, "num_warmup_steps": 1},
        },
    }
    return supervised_plan(SupervisedFineTuneRequest.model_validate(body))


def _ours(model: Path, examples: list[Example]) -> list[float]:
    from backends.training.loop import Trainer
    from backends.training.model import load_module

    moments: list[float] = []
    trainer = Trainer(load_module(model, "cpu"), _plan(), examples, [], lambda *_: moments.append(time.perf_counter()))
    moments.append(time.perf_counter())
    trainer.epoch(0)
    return [after - before for before, after in itertools.pairwise(moments)]


def _trl(model: Path, examples: list[Example], steps: int) -> list[float]:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from backends.training.model import load_module

    moments: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            moments.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            moments.append(time.perf_counter())

    method = _plan().method
    assert isinstance(method, Lora)
    rows = [
        {"input_ids": list(each.tokens), "completion_mask": [int(answer) for answer in each.answers]}
        for each in examples
    ]
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"))
    tokenizer.pad_token = tokenizer.eos_token = "<|im_end|>"
    with tempfile.TemporaryDirectory() as output:
        config = SFTConfig(
            output_dir=output,
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            learning_rate=1e-4,
            weight_decay=0.01,
            warmup_steps=1,
            lr_scheduler_type="cosine",
            optim="adamw_torch",
            max_grad_norm=1.0,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            activation_checkpointing=False,
            completion_only_loss=True,
            max_length=None,
            packing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1000,
        )
        SFTTrainer(
            model=load_module(model, "cpu"),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=method.rank,
                lora_alpha=method.alpha,
                target_modules=list(method.modules),
                lora_dropout=0.0,
                bias="none",
                task_type="CAUSAL_LM",
            ),
            callbacks=[Clock()],
        ).train()
    return [after - before for before, after in itertools.pairwise(moments)]


if __name__ == "__main__":
    main()
