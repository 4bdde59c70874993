from __future__ import annotations

import math
from typing import Any

import pytest

from backends.errors import BadRequest
from backends.models.catalog import DEFAULT_LLM
from backends.training.plan import Lora, Quantised, preference_plan, supervised_plan
from tests.backends.training.requests import DPO, LORA, QAT, preference, supervised


def test_the_contracts_names_of_modules_become_those_of_the_model() -> None:
    every = {**LORA, "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"], "apply_lora_to_output": True}
    plan = supervised_plan(supervised(every))
    assert plan.method == Lora(
        4, 8, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
    )


def test_without_an_algorithm_all_weights_are_trained() -> None:
    assert supervised_plan(supervised(None)).method is None
    assert supervised_plan(supervised(QAT)).method == Quantised("int8")


def test_a_clip_of_zero_is_none() -> None:
    plan = preference_plan(preference())
    assert plan.preference is not None
    assert plan.preference.clip == math.inf
    assert isinstance(plan.method, Lora)


@pytest.mark.parametrize(
    ("algorithm", "where"),
    [
        ({**LORA, "rank": 0}, "/algorithm_config/rank"),
        ({**LORA, "rank": 100_000}, "/algorithm_config/rank"),
        ({**LORA, "alpha": 0}, "/algorithm_config/alpha"),
        ({**LORA, "lora_attn_modules": ["w1"]}, "/algorithm_config/lora_attn_modules"),
        ({**LORA, "lora_attn_modules": [], "apply_lora_to_mlp": False}, "/algorithm_config"),
        ({**LORA, "use_dora": True, "quantize_base": True}, "/algorithm_config/use_dora"),
        ({**QAT, "quantizer_name": "nf4"}, "/algorithm_config/quantizer_name"),
        ({**QAT, "group_size": 128}, "/algorithm_config/group_size"),
    ],
)
def test_an_algorithm_that_cannot_be_is_refused_at_its_place(algorithm: dict[str, Any], where: str) -> None:
    with pytest.raises(BadRequest) as refused:
        supervised_plan(supervised(algorithm))
    assert refused.value.where == where


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"n_epochs": 0}, "n_epochs"),
        ({"max_steps_per_epoch": -1}, "max_steps_per_epoch"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps"),
        ({"max_validation_steps": -1}, "max_validation_steps"),
        ({"data_config__batch_size": 0}, "data_config/batch_size"),
        ({"optimizer_config__lr": 0.0}, "optimizer_config/lr"),
        ({"optimizer_config__lr": math.inf}, "optimizer_config/lr"),
        ({"optimizer_config__weight_decay": -0.1}, "optimizer_config/weight_decay"),
        ({"optimizer_config__num_warmup_steps": -1}, "optimizer_config/num_warmup_steps"),
        ({"dtype": "int4"}, "dtype"),
        (
            {"efficiency_config": {"enable_activation_offloading": True}},
            "efficiency_config/enable_activation_offloading",
        ),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_at_its_place(changes: dict[str, Any], where: str) -> None:
    for plan in (lambda: supervised_plan(supervised(**changes)), lambda: preference_plan(preference(**changes))):
        with pytest.raises(BadRequest) as refused:
            plan()
        assert refused.value.where == f"/training_config/{where}"


@pytest.mark.parametrize(
    ("algorithm", "where"),
    [
        ({**DPO, "reward_scale": 0.0}, "reward_scale"),
        ({**DPO, "reward_clip": -1.0}, "reward_clip"),
        ({**DPO, "epsilon": 0.5}, "epsilon"),
        ({**DPO, "gamma": math.nan}, "gamma"),
    ],
)
def test_a_preference_that_means_nothing_is_refused_at_its_place(algorithm: dict[str, Any], where: str) -> None:
    with pytest.raises(BadRequest) as refused:
        preference_plan(preference(algorithm))
    assert refused.value.where == f"/algorithm_config/{where}"


def test_what_is_not_offered_is_refused_by_name() -> None:
    searching = supervised().model_copy(update={"hyperparam_search_config": {"lr": [0.1]}})
    with pytest.raises(BadRequest, match="hyper-parameters"):
        supervised_plan(searching)
    with pytest.raises(BadRequest, match="packed"):
        preference_plan(preference(data_config__packed=True))


def test_without_a_model_it_is_the_default_one() -> None:
    assert supervised_plan(supervised().model_copy(update={"model": None})).model == DEFAULT_LLM
