"""The training loop: epochs of optimiser steps with a cosine schedule, validation, and states to go on from.

Data order, dropout-free forward passes and initial adapters follow from the seed, so that an attempt that goes on from
an epoch's state does what an uninterrupted one would have done.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.errors import BadRequest
from backends.training.examples import Example, Pair
from backends.training.plan import BLOCK, Lora, Plan, Preference, Quantised

if TYPE_CHECKING:
    import torch

SEED = 20_240_607
CLIP = 1.0
"""Largest norm of all gradients together."""
_IGNORED = -100
"""The label that cross entropy leaves out."""
_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """Mean losses in nats per token (per pair for preferences); validation_loss: None without validation data."""

    epoch: int
    train_loss: float
    validation_loss: float | None

    @property
    def perplexity(self) -> float | None:
        """e to the validation loss."""
        return None if self.validation_loss is None else math.exp(min(self.validation_loss, 700.0))


class Trainer:
    """Trains one module.

    examples, validation: of one kind, those of a preference are pairs. stepped: called after each optimiser step with
    (epoch, step, steps of an epoch, loss); what it raises ends the training.
    """

    def __init__(
        self,
        module: Any,
        plan: Plan,
        examples: Sequence[Example] | Sequence[Pair],
        validation: Sequence[Example] | Sequence[Pair],
        stepped: Callable[[int, int, int, float], None],
    ) -> None:
        import torch

        torch.manual_seed(SEED)
        self.module = prepared(module, plan)
        self._plan = plan
        self._examples = examples
        self._validation = validation
        self._stepped = stepped
        self._device = next(self.module.parameters()).device
        training = plan.training
        per_step = plan.batch * training.gradient_accumulation_steps
        self.steps = len(examples) // per_step
        if training.max_steps_per_epoch:
            self.steps = min(self.steps, training.max_steps_per_epoch)
        if self.steps == 0:
            raise BadRequest(
                f"{len(examples)} examples are too few for one step of batch_size {plan.batch} times "
                f"{training.gradient_accumulation_steps} accumulated batches",
                where="/training_config/data_config/batch_size",
            )
        config = training.optimizer_config
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self._optimizer = getattr(torch.optim, _OPTIMIZERS[config.optimizer_type])(
            trained, lr=config.lr, weight_decay=config.weight_decay
        )
        self._trained = trained
        total = self.steps * training.n_epochs
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: _cosine(step, config.num_warmup_steps, total)
        )
        # Halves of the numbers save memory and time on CUDA; the CPU has no arithmetic for them.
        halves = training.dtype == "bf16" and self._device.type == "cuda"
        self._precision: Any = (lambda: torch.autocast("cuda", torch.bfloat16)) if halves else nullcontext

    def epoch(self, epoch: int) -> EpochMetrics:
        """Train epoch `epoch`, counted from 0, and validate."""
        self.module.train()
        accumulated = self._plan.training.gradient_accumulation_steps
        batches = self._batches(epoch)
        losses = []
        for step in range(self.steps):
            loss = 0.0
            for _ in range(accumulated):
                with self._precision():
                    value = self._loss(next(batches)) / accumulated
                value.backward()
                loss += float(value.detach())
            self._clip()
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad(set_to_none=True)
            losses.append(loss)
            self._stepped(epoch, step + 1, self.steps, loss)
        return EpochMetrics(epoch, float(np.mean(losses)), self.validate())

    def save(self, file: Path) -> None:
        """Write what `restore` needs: trained weights, optimiser and schedule. The file is whole or not there."""
        import torch

        names = self._trained_names()
        state = {name: tensor for name, tensor in self.module.state_dict().items() if name in names}
        partial = file.with_name(f"{file.name}.partial")
        with partial.open("wb") as stream:
            torch.save(
                {"weights": state, "optimizer": self._optimizer.state_dict(), "schedule": self._schedule.state_dict()},
                stream,
            )
            stream.flush()
            os.fsync(stream.fileno())
        partial.rename(file)

    def restore(self, file: Path) -> None:
        """Go on from where `save` was called."""
        import torch

        state = torch.load(file, map_location=self._device, weights_only=True)
        self.module.load_state_dict(state["weights"], strict=False)
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])

    def _trained_names(self) -> set[str]:
        return {name for name, parameter in self.module.named_parameters() if parameter.requires_grad}

    def _batches(self, epoch: int) -> Iterator[list[Any]]:
        order = np.arange(len(self._examples))
        if self._plan.training.data_config.shuffle:
            np.random.default_rng([SEED, epoch]).shuffle(order)
        for start in range(0, len(order) - self._plan.batch + 1, self._plan.batch):
            yield [self._examples[i] for i in order[start : start + self._plan.batch]]

    def _clip(self) -> None:
        import torch

        torch.nn.utils.clip_grad_norm_(self._trained, CLIP)

    def validate(self) -> float | None:
        """The mean loss of the validation examples, None without any."""
        import torch

        limit = self._plan.training.max_validation_steps or len(self._validation)
        batches = [
            self._validation[start : start + self._plan.batch]
            for start in range(0, len(self._validation), self._plan.batch)
        ][:limit]
        if not batches:
            return None
        self.module.eval()
        with torch.no_grad(), self._precision():
            losses = [float(self._loss(list(batch))) for batch in batches]
        return float(np.average(losses, weights=[len(batch) for batch in batches]))

    def _loss(self, batch: list[Any]) -> torch.Tensor:
        import torch

        preference = self._plan.preference
        if preference is None:
            tokens, labels, mask = self._tensors(batch)
            logits = self.module(input_ids=tokens, attention_mask=mask, use_cache=False).logits
            return torch.nn.functional.cross_entropy(
                logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED
            )
        answers = [pair.chosen for pair in batch] + [pair.rejected for pair in batch]
        tokens, labels, mask = self._tensors(answers)
        ours = self._log_probabilities(tokens, labels, mask)
        with torch.no_grad(), self.module.disable_adapter():
            before = self._log_probabilities(tokens, labels, mask)
        return preference_loss(ours - before, preference)

    def _log_probabilities(self, tokens: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The log probability of each answer, float32 [answers]."""
        import torch

        logits = self.module(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        each = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), labels[:, 1:], ignore_index=_IGNORED, reduction="none"
        )
        return -each.sum(-1)

    def _tensors(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens, labels and attention mask, int64 [examples, longest], padded on the right."""
        import torch

        longest = max(len(example.tokens) for example in examples)
        tokens = np.zeros((len(examples), longest), np.int64)
        labels = np.full((len(examples), longest), _IGNORED, np.int64)
        mask = np.zeros((len(examples), longest), np.int64)
        for row, example in enumerate(examples):
            size = len(example.tokens)
            tokens[row, :size] = example.tokens
            labels[row, :size] = np.where(example.answers, example.tokens, _IGNORED)
            mask[row, :size] = 1
        return tuple(torch.from_numpy(each).to(self._device) for each in (tokens, labels, mask))


def preference_loss(gains: torch.Tensor, preference: Preference) -> torch.Tensor:
    """The mean loss of pairs. gains: log probabilities over those of the model before: all chosen, all rejected."""
    import torch

    chosen, rejected = gains.chunk(2)
    difference = preference.beta * (chosen - rejected)
    if math.isfinite(preference.clip):
        difference = difference.clamp(-preference.clip, preference.clip)
    logits = difference - preference.margin
    log = torch.nn.functional.logsigmoid
    return (-(1 - preference.smoothing) * log(logits) - preference.smoothing * log(-logits)).mean()


def prepared(module: Any, plan: Plan) -> Any:
    """The module with what the plan trains: adapters, rounded weights, or all of it."""
    if plan.efficiency.enable_activation_checkpointing:
        module.activation_checkpointing_enable({"use_reentrant": False})
        module.enable_input_require_grads()
    if isinstance(plan.method, Lora):
        return _with_adapters(module, plan.method)
    if isinstance(plan.method, Quantised):
        return _rounded(module, plan.method)
    return module


def merged_state(module: Any, plan: Plan, base: Callable[[], Any]) -> dict[str, torch.Tensor]:
    """The weights of the trained module under their plain names; the module trains on as it is.

    base: opens the model that was trained again. Adapters are merged into its exact weights: merging them into the
    trained module would leave rounding behind, and cannot be done with one whose weights are codes.
    """
    if not isinstance(plan.method, Lora):
        return dict(module.state_dict())
    adapters = {name: tensor for name, tensor in module.state_dict().items() if "lora_" in name}
    plain = _with_adapters(base(), replace(plan.method, quantised_base=False))
    plain.load_state_dict(adapters, strict=False)
    return dict(plain.merge_and_unload().state_dict())


def _with_adapters(module: Any, lora: Lora) -> Any:
    from peft import LoraConfig, get_peft_model

    if "lm_head" in lora.modules and module.config.tie_word_embeddings:
        _part_head(module)
    if lora.quantised_base:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(module.model.layers, Int8WeightOnlyConfig())
    fused = {
        "q_proj": "qkv_proj",
        "k_proj": "qkv_proj",
        "v_proj": "qkv_proj",
        "gate_proj": "gate_up_proj",
        "up_proj": "gate_up_proj",
    }
    there = {name.rpartition(".")[2] for name, _ in module.named_modules()}
    modules = [name if name in there else fused[name] for name in lora.modules]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(dict.fromkeys(modules)),
        use_dora=lora.dora,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # That adapters cannot be merged into codes: they are merged into the exact weights, by `merged_state`.
        warnings.filterwarnings("ignore", message="TorchaoLoraLinear was instantiated", category=UserWarning)
        return get_peft_model(module, config)


def _part_head(module: Any) -> None:
    """Give the head weights of its own, so that an adapter of it leaves the embedding alone."""
    import torch

    module.config.tie_word_embeddings = False
    module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.detach().clone())


def _rounded(module: Any, quantised: Quantised) -> Any:
    """Let every matrix of the layers compute with weights rounded to codes, through which gradients pass unchanged."""
    import torch
    from torchao.quantization import quantize_
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    kind = torch.int8 if quantised.precision == "int8" else torch.int4
    quantize_(
        module.model.layers, QATConfig(weight_config=IntxFakeQuantizeConfig(kind, group_size=BLOCK), step="prepare")
    )
    return module


def _cosine(step: int, warmup: int, total: int) -> float:
    """Share of the learning rate: a linear rise, then half a cosine down to 0 (Loshchilov, arXiv:1608.03983)."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
