"""Jobs of fine-tuning."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from onnxstack_conformance.marks import rule
from onnxstack_conformance.stack import Stack, leave_out

ROWS = [
    {"chat_completion_input": '[{"role": "user", "content": "Colour?"}]', "expected_answer": "Blue."},
    {"chat_completion_input": '[{"role": "user", "content": "River?"}]', "expected_answer": "Seine."},
]
PAIRS = [
    {"prompt": "Colour?", "chosen": "Blue.", "rejected": "Seven."},
    {"prompt": "River?", "chosen": "Seine.", "rejected": "No."},
]
LORA = {
    "type": "LoRA",
    "lora_attn_modules": ["q_proj", "v_proj"],
    "apply_lora_to_mlp": False,
    "apply_lora_to_output": False,
    "rank": 4,
    "alpha": 8,
}
LIFE = ("training_job_status", "training_job_artifacts", "list_training_jobs")


def training(stack: Stack, dataset: str) -> Mapping[str, Any]:
    """One step on two rows."""
    return {
        "n_epochs": 1,
        "max_steps_per_epoch": 1,
        "gradient_accumulation_steps": 1,
        "max_validation_steps": 1,
        "data_config": {"dataset_id": dataset, "batch_size": 1, "shuffle": False, "data_format": "instruct"},
        "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-4, "weight_decay": 0.1, "num_warmup_steps": 0},
    }


def begin(stack: Stack, operation: str) -> str:
    """Start a job; the rule is left out where the server says that it cannot train."""
    if not stack.options.training:
        leave_out("--no-training")
    job = str(uuid.uuid4())
    if operation == "supervised_fine_tune":
        dataset = stack.dataset(ROWS, {"chat_completion_input": "chat_completion_input"})
        more: dict[str, Any] = {"model": stack.llm["identifier"], "algorithm_config": LORA}
    else:
        dataset = stack.dataset(PAIRS)
        algorithm = {"reward_scale": 0.1, "reward_clip": 1.0, "epsilon": 0.0, "gamma": 0.0}
        more = {"finetuned_model": stack.llm["identifier"], "algorithm_config": algorithm}
    body = {
        "job_uuid": job,
        "training_config": training(stack, dataset),
        "hyperparam_search_config": {},
        "logger_config": {},
    }
    answer = stack.attempt(operation, body={**body, **more})
    if answer.status == 404:
        stack.call(operation, body={**body, **more})
    if answer.status >= 400:
        leave_out(f"{operation} is refused with {answer.status}: {answer.text[:300]}")
    answer.must(answer.json()["job_uuid"] == job, f"the job {job} was asked for, the answer names {answer.json()}")
    return job


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(name, id=name, marks=rule(name, *LIFE, source="contract: PostTrainingJob and its status"))
        for name in ("supervised_fine_tune", "preference_optimize")
    ],
)
def test_a_job_of_training_goes_on_to_its_checkpoints(stack: Stack, operation: str) -> None:
    """The request returns at once with the job; it is listed, ends as completed, and has a checkpoint."""
    job = begin(stack, operation)
    listed = stack.call("list_training_jobs")
    names = [entry["job_uuid"] for entry in listed.json()["data"]]
    listed.must(names.count(job) == 1, f"the job {job} was started, and is in the list {names.count(job)} times")
    status = stack.call("training_job_status", query={"job_uuid": job})
    status.must(status.json() is not None, f"the job {job} was started, and its status is null")
    for _ in stack.until(stack.options.job_timeout_s):
        if status.json()["status"] not in ("scheduled", "in_progress"):
            break
        status = stack.call("training_job_status", query={"job_uuid": job})
    found = status.json()
    status.must(found["job_uuid"] == job, f"asked for {job}, got {found['job_uuid']}")
    status.must(
        found["status"] == "completed", f"the job ends as {found['status']!r}: {found.get('resources_allocated')}"
    )
    artifacts = stack.call("training_job_artifacts", query={"job_uuid": job})
    artifacts.must(bool((artifacts.json() or {}).get("checkpoints")), "the job has completed, and has no checkpoint")


@rule("cancel_training_job", source="contract: job/cancel")
def test_a_cancelled_job_of_training_comes_to_an_end(stack: Stack) -> None:
    """Cancelling succeeds, and a minute later the job is neither scheduled nor in progress."""
    job = begin(stack, "supervised_fine_tune")
    gone = stack.call("cancel_training_job", body={"job_uuid": job})
    state = None
    for _ in stack.until(60):
        state = (stack.call("training_job_status", query={"job_uuid": job}).json() or {}).get("status")
        if state not in ("scheduled", "in_progress"):
            return
    gone.wrong(f"a minute after it was cancelled the job is {state!r}")


@rule("training_job_status", "training_job_artifacts", source="contract: the answers may be null")
def test_an_unknown_job_of_training_is_null_or_not_found(stack: Stack) -> None:
    """Status and artifacts of an unknown job say null, as the contract allows here, or 404."""
    stack.call("list_training_jobs")
    for operation in ("training_job_status", "training_job_artifacts"):
        answer = stack.send(operation, query={"job_uuid": "00000000-0000-4000-8000-000000000000"})
        none = answer.status in (400, 404) or (answer.status == 200 and answer.text.strip() == "null")
        answer.must(none, f"an unknown job is answered {answer.status} {answer.text[:200]}")


@rule("cancel_training_job", source="our interpretation: it is the caller's mistake")
def test_cancelling_an_unknown_job_is_no_error_of_the_server(stack: Stack) -> None:
    """An unknown job is refused with a 4xx, or there is nothing to do."""
    answer = stack.send("cancel_training_job", body={"job_uuid": "00000000-0000-4000-8000-000000000000"})
    answer.must(answer.status < 500 or answer.status == 501, f"an unknown job is answered {answer.status}")
