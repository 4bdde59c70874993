"""Fine-tuning as a client asks for it: the values that docs/post-training.md recommends for a few facts."""

from __future__ import annotations

from typing import Any

COLUMNS = {
    "input_query": {"type": "string"},
    "chat_completion_input": {"type": "chat_completion_input"},
    "expected_answer": {"type": "string"},
}


def training_config(
    job_uuid: str, model: str, dataset: str, *, validation: str, batch_size: int = 2, n_epochs: int = 3
) -> dict[str, Any]:
    """Arguments of `post_training.supervised_fine_tune`."""
    return {
        "job_uuid": job_uuid,
        "model": model,
        "algorithm_config": {
            "type": "LoRA",
            "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
            "apply_lora_to_mlp": True,
            "apply_lora_to_output": False,
            "rank": 16,
            "alpha": 32,
        },
        "training_config": {
            "n_epochs": n_epochs,
            "max_steps_per_epoch": 0,
            "gradient_accumulation_steps": 1,
            "max_validation_steps": 0,
            "dtype": "fp32",
            "data_config": {
                "dataset_id": dataset,
                "validation_dataset_id": validation,
                "batch_size": batch_size,
                "shuffle": True,
                "data_format": "instruct",
            },
            "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-3, "weight_decay": 0.01, "num_warmup_steps": 3},
        },
        "hyperparam_search_config": {},
        "logger_config": {},
    }
