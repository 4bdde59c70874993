"""Fine-tuning requests for the tests."""

from __future__ import annotations

from typing import Any

from generated.models import PreferenceOptimizeRequest, SupervisedFineTuneRequest

LORA: dict[str, Any] = {
    "type": "LoRA",
    "lora_attn_modules": ["q_proj", "v_proj", "output_proj"],
    "apply_lora_to_mlp": True,
    "apply_lora_to_output": False,
    "rank": 4,
    "alpha": 8,
}
QAT: dict[str, Any] = {"type": "QAT", "quantizer_name": "int8", "group_size": 32}
DPO: dict[str, Any] = {"reward_scale": 0.5, "reward_clip": 0.0, "epsilon": 0.0, "gamma": 0.0}


def training(**changes: Any) -> dict[str, Any]:
    """A training configuration; `data_config__x` and `optimizer_config__x` change members of those."""
    config: dict[str, Any] = {
        "n_epochs": 2,
        "max_steps_per_epoch": 0,
        "gradient_accumulation_steps": 1,
        "max_validation_steps": 0,
        "data_config": {"dataset_id": "d", "batch_size": 2, "shuffle": True, "data_format": "instruct"},
        "optimizer_config": {"optimizer_type": "adamw", "lr": 0.01, "weight_decay": 0.0, "num_warmup_steps": 1},
        "dtype": "fp32",
    }
    for name, value in changes.items():
        section, _, member = name.partition("__")
        if member:
            config[section] = {**config[section], member: value}
        else:
            config[section] = value
    return config


def supervised(algorithm: dict[str, Any] | None = LORA, **changes: Any) -> SupervisedFineTuneRequest:
    """A supervised fine-tuning; `changes` are of the training configuration."""
    body = {
        "job_uuid": "job",
        "model": "base",
        "hyperparam_search_config": {},
        "logger_config": {},
        "algorithm_config": algorithm,
        "training_config": training(**changes),
    }
    return SupervisedFineTuneRequest.model_validate(body)


def preference(algorithm: dict[str, Any] = DPO, **changes: Any) -> PreferenceOptimizeRequest:
    """A preference optimisation."""
    body = {
        "job_uuid": "job",
        "finetuned_model": "base",
        "hyperparam_search_config": {},
        "logger_config": {},
        "algorithm_config": algorithm,
        "training_config": training(**changes),
    }
    return PreferenceOptimizeRequest.model_validate(body)
