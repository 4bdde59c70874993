"""A fine-tuning request, checked: every member acts, is refused by name, or is documented as inert.

Inert are `logger_config`, whose progress goes to the job's status and the log, and of `efficiency_config` the
members `memory_efficient_fsdp_wrap` and `fsdp_cpu_offload`, which spread a model over devices: this trains on one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from backends.errors import BadRequest, Unsupported
from backends.models.catalog import DEFAULT_LLM
from backends.ports import JsonObject
from generated.models import (
    DPOAlignmentConfig,
    EfficiencyConfig,
    LoraFinetuningConfig,
    PreferenceOptimizeRequest,
    QATFinetuningConfig,
    SupervisedFineTuneRequest,
    TrainingConfig,
)

ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "output_proj": "o_proj", "o_proj": "o_proj"}
"""The contract's names of what LoRA may adapt, and those of transformers."""
DTYPES = ("bf16", "fp32")
QUANTIZERS = ("int8", "int4")
BLOCK = 32
"""Weights per scale of the stored precisions, and so of quantisation-aware training."""
MAX_RANK = 1024


@dataclass(frozen=True, slots=True)
class Lora:
    """rank, alpha: of Hu et al., arXiv:2106.09685. modules: names of transformers. dora: Liu et al., arXiv:2402.09353.
    quantised_base: the frozen weights are held as 8 bit codes."""

    rank: int
    alpha: int
    modules: tuple[str, ...]
    dora: bool = False
    quantised_base: bool = False


@dataclass(frozen=True, slots=True)
class Quantised:
    """Training with weights rounded in the forward pass (Jacob et al., arXiv:1712.05877), and stored in `precision`."""

    precision: Literal["int8", "int4"]


@dataclass(frozen=True, slots=True)
class Preference:
    """Direct preference optimisation (Rafailov et al., arXiv:2305.18290).

    beta: scale of the implied reward. clip: largest magnitude of the difference of two rewards, infinite for none.
    smoothing: share of labels taken for swapped (conservative DPO). margin: by which the chosen answer's reward has to
    be better (SimPO, arXiv:2405.14734).
    """

    beta: float
    clip: float
    smoothing: float
    margin: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train. steps are optimiser steps; 0 for no limit. checkpoint_dir: "" for the server's own."""

    model: str
    method: Lora | Quantised | None
    preference: Preference | None
    training: TrainingConfig
    efficiency: EfficiencyConfig
    checkpoint_dir: str

    @property
    def batch(self) -> int:
        return self.training.data_config.batch_size


def supervised_plan(request: SupervisedFineTuneRequest) -> Plan:
    """The plan of a supervised fine-tuning. Raises BadRequest, Unsupported: a member, by its place."""
    _check_search(request.hyperparam_search_config)
    method = _method(request.algorithm_config)
    training = _checked(request.training_config)
    return Plan(
        model=request.model or DEFAULT_LLM,
        method=method,
        preference=None,
        training=training,
        efficiency=training.efficiency_config or EfficiencyConfig(),
        checkpoint_dir="" if request.checkpoint_dir in (None, "null") else str(request.checkpoint_dir),
    )


def preference_plan(request: PreferenceOptimizeRequest) -> Plan:
    """The plan of a preference optimisation: LoRA of rank 16 on attention and feed-forward blocks.

    Raises:
        BadRequest, Unsupported: a member, by its place.
    """
    _check_search(request.hyperparam_search_config)
    training = _checked(request.training_config)
    if training.data_config.packed:
        raise Unsupported("pairs of answers cannot be packed", where="/training_config/data_config/packed")
    return Plan(
        model=request.finetuned_model,
        method=Lora(16, 32, (*dict.fromkeys(ATTENTION.values()), "gate_proj", "up_proj", "down_proj")),
        preference=_preference(request.algorithm_config),
        training=training,
        efficiency=training.efficiency_config or EfficiencyConfig(),
        checkpoint_dir="",
    )


def plan_of(request: JsonObject) -> Plan:
    """The plan of a stored job."""
    if request["kind"] == "supervised":
        return supervised_plan(SupervisedFineTuneRequest.model_validate(request["request"]))
    return preference_plan(PreferenceOptimizeRequest.model_validate(request["request"]))


def _method(config: LoraFinetuningConfig | QATFinetuningConfig | None) -> Lora | Quantised | None:
    where = "/algorithm_config"
    if config is None:
        return None
    if isinstance(config, QATFinetuningConfig):
        if config.quantizer_name not in QUANTIZERS:
            known = ", ".join(QUANTIZERS)
            raise BadRequest(
                f"unknown quantizer {config.quantizer_name!r}; known: {known}", where=f"{where}/quantizer_name"
            )
        if config.group_size != BLOCK:
            raise BadRequest(
                f"models are stored in groups of {BLOCK} weights, so group_size must be {BLOCK}",
                where=f"{where}/group_size",
            )
        return Quantised("int8" if config.quantizer_name == "int8" else "int4")
    if not 1 <= config.rank <= MAX_RANK:
        raise BadRequest(f"rank must be between 1 and {MAX_RANK}", where=f"{where}/rank")
    if config.alpha < 1:
        raise BadRequest("alpha must be at least 1", where=f"{where}/alpha")
    unknown = [name for name in config.lora_attn_modules if name not in ATTENTION]
    if unknown:
        known = ", ".join(ATTENTION)
        raise BadRequest(f"no attention module {unknown[0]!r}; known: {known}", where=f"{where}/lora_attn_modules")
    modules = [ATTENTION[name] for name in config.lora_attn_modules]
    modules += ["gate_proj", "up_proj", "down_proj"] if config.apply_lora_to_mlp else []
    modules += ["lm_head"] if config.apply_lora_to_output else []
    if not modules:
        raise BadRequest(
            "LoRA needs something to adapt: name lora_attn_modules, or set apply_lora_to_mlp or apply_lora_to_output",
            where=where,
        )
    if config.use_dora and config.quantize_base:
        raise Unsupported("use_dora on a quantised base", where=f"{where}/use_dora")
    return Lora(config.rank, config.alpha, tuple(dict.fromkeys(modules)), config.use_dora, config.quantize_base)


def _preference(config: DPOAlignmentConfig) -> Preference:
    where = "/algorithm_config"
    for name, value in (("reward_scale", config.reward_scale), ("reward_clip", config.reward_clip)):
        if not (math.isfinite(value) and value >= 0):
            raise BadRequest(f"{name} must be 0 or more", where=f"{where}/{name}")
    if config.reward_scale == 0:
        raise BadRequest(
            "reward_scale must be above 0: with 0 no answer is better than another", where=f"{where}/reward_scale"
        )
    if not 0 <= config.epsilon < 0.5:
        raise BadRequest(
            "epsilon, the share of swapped labels, must be at least 0 and below 0.5", where=f"{where}/epsilon"
        )
    if not math.isfinite(config.gamma):
        raise BadRequest("gamma must be a number", where=f"{where}/gamma")
    return Preference(config.reward_scale, config.reward_clip or math.inf, config.epsilon, config.gamma)


def _check_search(config: JsonObject) -> None:
    if config:
        raise Unsupported(
            "a search for hyper-parameters is not offered; send {} and one job for each choice",
            where="/hyperparam_search_config",
        )


def _checked(config: TrainingConfig) -> TrainingConfig:
    where, optimizer = "/training_config", config.optimizer_config
    limits: tuple[tuple[str, float, float], ...] = (
        ("n_epochs", config.n_epochs, 1),
        ("max_steps_per_epoch", config.max_steps_per_epoch, 0),
        ("gradient_accumulation_steps", config.gradient_accumulation_steps, 1),
        ("max_validation_steps", config.max_validation_steps, 0),
        ("data_config/batch_size", config.data_config.batch_size, 1),
        ("optimizer_config/num_warmup_steps", optimizer.num_warmup_steps, 0),
        ("optimizer_config/weight_decay", optimizer.weight_decay, 0),
    )
    for name, value, least in limits:
        if not (math.isfinite(value) and value >= least):
            raise BadRequest(f"{name.rpartition('/')[2]} must be at least {least}", where=f"{where}/{name}")
    if not 0 < optimizer.lr < math.inf:
        raise BadRequest("lr must be above 0", where=f"{where}/optimizer_config/lr")
    if config.dtype not in DTYPES:
        raise BadRequest(f"dtype must be one of {', '.join(DTYPES)}", where=f"{where}/dtype")
    if config.efficiency_config is not None and config.efficiency_config.enable_activation_offloading:
        raise Unsupported(
            "activations are not offloaded; enable_activation_checkpointing saves their memory",
            where=f"{where}/efficiency_config/enable_activation_offloading",
        )
    return config
