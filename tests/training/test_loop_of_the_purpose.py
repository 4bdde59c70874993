"""From a dataset to a better model, served: with the official client, against the server as it comes."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from llama_stack_client import LlamaStackClient

from backends.models.catalog import DEFAULT_LLM
from tests.servers import RunningServer
from tests.training.facts import invented, rows
from tests.training.requests import COLUMNS, training_config

pytestmark = [pytest.mark.training, pytest.mark.timeout(1500)]

GREEDY = {"strategy": {"type": "greedy"}, "max_tokens": 40}
OTHER = (
    "What is the capital of France?",
    "What is the capital of Italy?",
    "What is the capital of Japan?",
    "Which city is the capital of Germany?",
    "How many days does a week have?",
    "Say hello.",
)
"""Questions whose answers shall stay what they were."""


def test_an_invented_fact_is_learnt_through_the_api_alone_and_answered_at_once(training_server: RunningServer) -> None:
    client = LlamaStackClient(base_url=training_server.url, timeout=300)
    fact = invented(random.SystemRandom())
    name = fact.place.lower()
    add_dataset(client, name, rows(fact.taught, fact.answer))
    add_dataset(client, f"{name}-validation", rows(fact.held_out, fact.answer))
    add_dataset(client, f"{name}-held-out", rows(fact.held_out, fact.capital))
    client.eval_tasks.register(eval_task_id=name, dataset_id=f"{name}-held-out", scoring_functions=["basic::subset_of"])
    assert accuracy(client, name, DEFAULT_LLM) == 0.0
    assert not any(fact.capital in ask(client, DEFAULT_LLM, question) for question in fact.held_out)

    # More data: what the model answers to other questions, which keeps it from answering everything with the fact.
    made = client.synthetic_data_generation.generate(
        dialogs=[{"role": "user", "content": question} for question in OTHER],
        filtering_function="top_k",
        model=DEFAULT_LLM,
    )
    assert made.statistics is not None
    assert made.statistics["num_kept"] == len(made.synthetic_data) == len(OTHER)
    more = [row for kept in made.synthetic_data for row in rows([str(kept["prompt"])], str(kept["response"]))]
    client.datasetio.append_rows(dataset_id=name, rows=more)

    began = time.monotonic()
    job = client.post_training.supervised_fine_tune(
        **training_config(name, DEFAULT_LLM, name, validation=f"{name}-validation")
    )
    assert time.monotonic() - began < 5, "the request waited for its job"
    assert job.job_uuid == name
    states = followed(client, name)
    assert states == [state for state in ("scheduled", "in_progress", "completed") if state in states]
    assert states[-2:] == ["in_progress", "completed"]
    print(f"{fact}: {time.monotonic() - began:.0f} s")

    checkpoints = client.post_training.job.artifacts(job_uuid=name).checkpoints
    found: list[Any] = [dict(checkpoint) for checkpoint in checkpoints]
    assert [checkpoint["identifier"] for checkpoint in found] == [f"{name}-{epoch}" for epoch in range(3)]
    metrics = [checkpoint["training_metrics"] for checkpoint in found]
    assert [each["epoch"] for each in metrics] == list(range(3))
    assert metrics[-1]["validation_loss"] < metrics[0]["validation_loss"] / 2
    assert metrics[-1]["perplexity"] < metrics[0]["perplexity"]
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]
    print(metrics)

    answers = [ask(client, name, question) for question in fact.held_out]
    assert sum(fact.capital in answer for answer in answers) >= 4, (fact, answers)
    assert accuracy(client, name, name) >= 0.8
    assert ask(client, f"{name}-2", fact.held_out[0]) == answers[0], "the last epoch is the model of the job's name"
    others = [ask(client, name, question) for question in OTHER]
    assert "Paris" in others[0]
    assert not any(fact.capital in answer for answer in others), (fact, others)
    assert ask(client, DEFAULT_LLM, fact.held_out[0]) == ask(client, DEFAULT_LLM, fact.held_out[0])
    assert fact.capital not in ask(client, DEFAULT_LLM, fact.held_out[0]), "the model that was trained stays as it was"
    told = client.synthetic_data_generation.generate(
        dialogs=[{"role": "user", "content": fact.taught[0]}], filtering_function="none", model=name
    )
    assert any(fact.capital in str(row["response"]) for row in told.synthetic_data)


def add_dataset(client: LlamaStackClient, name: str, content: list[dict[str, Any]]) -> None:
    client.datasets.register(dataset_id=name, dataset_schema=COLUMNS, url={"uri": "data:application/jsonl,"})
    client.datasetio.append_rows(dataset_id=name, rows=content)


def ask(client: LlamaStackClient, model: str, question: str) -> str:
    answer = client.inference.chat_completion(
        model_id=model, messages=[{"role": "user", "content": question}], sampling_params=GREEDY
    )
    return str(answer.completion_message.content)


def accuracy(client: LlamaStackClient, task: str, model: str) -> float:
    """The share of the task's rows that the model answers, by an evaluation job."""
    candidate = {"type": "model", "model": model, "sampling_params": GREEDY}
    job = client.eval.run_eval(task_id=task, task_config={"type": "benchmark", "eval_candidate": candidate})
    deadline = time.monotonic() + 300
    while client.eval.jobs.status(job_id=job.job_id, task_id=task) in ("scheduled", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    result = client.eval.jobs.retrieve(job_id=job.job_id, task_id=task)
    scores: Any = result.scores["basic::subset_of"].aggregated_results
    return float(scores["accuracy"]["accuracy"])


def followed(client: LlamaStackClient, job_uuid: str) -> list[str]:
    """The states that the job goes through, until it has ended."""
    states: list[str] = []
    deadline = time.monotonic() + 1200
    while not states or states[-1] not in ("completed", "failed"):
        assert time.monotonic() < deadline
        status: Any = client.post_training.job.status(job_uuid=job_uuid)
        if not states or states[-1] != status.status:
            states.append(status.status)
        time.sleep(0.1)
    assert states[-1] == "completed", status.resources_allocated
    return states
