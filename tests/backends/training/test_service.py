"""The operations of post-training on jobs that run in this process, with a trainer that learns nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from backends.config import JobSettings
from backends.context import CallContext
from backends.errors import BadRequest, Conflict, NotFound, StorageFull, UnknownReference
from backends.jobs.running import RunningJob
from backends.memory.trainer import MemoryTrainer
from backends.ports import JsonObject, TrainedEpoch
from backends.stack import Backends, open_backends
from backends.training.plan import Plan
from generated import models as m
from tests.backends.resources.conftest import settings_of
from tests.backends.training.requests import DPO, LORA, training

CONTEXT = CallContext(request_id="test")
ONE = CallContext(request_id="test", owner="one")
OTHER = CallContext(request_id="test", owner="other")
DEADLINE_S = 20.0
ROWS: list[dict[str, Any]] = [{"input_query": "q", "expected_answer": "a"}]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Backends]:
    opened = open_backends(settings_of(tmp_path).model_copy(update={"jobs": JobSettings(runner="thread")}))
    prepare(opened, CONTEXT)
    yield opened
    opened.close()


def prepare(stack: Backends, context: CallContext) -> None:
    """A model and two datasets of the owner's."""
    stack.models.register(context, m.RegisterModelRequest(model_id="base", provider_id="memory"))
    for name in ("d", "held-out"):
        stack.datasets.register(
            context,
            m.RegisterDatasetRequest(
                dataset_id=name,
                dataset_schema={column: m.StringType() for column in ROWS[0]},
                url=m.URL(uri="data:application/jsonl,"),
            ),
        )
        stack.datasets.append(context, name, ROWS, where="/dataset_id")


def request(job_uuid: str = "job", **changes: Any) -> m.SupervisedFineTuneRequest:
    return m.SupervisedFineTuneRequest.model_validate(
        {
            "job_uuid": job_uuid,
            "model": "base",
            "hyperparam_search_config": {},
            "logger_config": {},
            "algorithm_config": LORA,
            "training_config": training(**changes),
        }
    )


def status(stack: Backends, job_uuid: str = "job", context: CallContext = CONTEXT) -> m.PostTrainingJobStatusResponse:
    found = stack.training.status(context, job_uuid)
    assert found is not None
    return found


def ended(stack: Backends, job_uuid: str = "job", context: CallContext = CONTEXT) -> m.PostTrainingJobStatusResponse:
    deadline = time.monotonic() + DEADLINE_S
    while status(stack, job_uuid, context).status in ("scheduled", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return status(stack, job_uuid, context)


def model_ids(stack: Backends, context: CallContext = CONTEXT) -> list[str]:
    return sorted(model.identifier for model in stack.models.list(context) if "/" not in model.identifier)


def data(dataset_id: str = "d", validation: str | None = "held-out") -> dict[str, Any]:
    return {
        "dataset_id": dataset_id,
        "validation_dataset_id": validation,
        "batch_size": 1,
        "shuffle": True,
        "data_format": "instruct",
    }


class GatedTrainer(MemoryTrainer):
    """Waits for `gate` before its second epoch, or for its cancellation, and fails there with `error`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.error: Exception | None = None
        self.forgotten: list[str] = []

    def train(
        self,
        job: RunningJob,
        plan: Plan,
        model: str,
        rows: Sequence[JsonObject],
        validation: Sequence[JsonObject],
        done: int,
    ) -> Iterator[TrainedEpoch]:
        for epoch in super().train(job, plan, model, rows, validation, done):
            if epoch.epoch:
                deadline = time.monotonic() + DEADLINE_S
                while not self.gate.wait(0.01):
                    job.context.check()
                    assert time.monotonic() < deadline
                if self.error is not None:
                    raise self.error
            yield epoch

    def forget(self, job: Any) -> None:
        self.forgotten.append(job.job_id)


@pytest.fixture
def gated(stack: Backends, monkeypatch: pytest.MonkeyPatch) -> Iterator[GatedTrainer]:
    trainer = GatedTrainer()
    monkeypatch.setattr(type(stack.training), "_trainer", lambda _self: trainer)
    yield trainer
    trainer.gate.set()


def until_first_epoch(stack: Backends, job_uuid: str = "job") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not status(stack, job_uuid).checkpoints:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_epoch_becomes_a_model_with_its_metrics_and_the_last_one_that_of_the_job(stack: Backends) -> None:
    assert stack.training.supervised(CONTEXT, request(data_config=data())).state == "scheduled"
    done = ended(stack)
    assert done.status == "completed"
    assert done.scheduled_at <= done.started_at <= done.completed_at  # type: ignore[operator]
    checkpoints: Any = stack.training.checkpoints(CONTEXT, "job")
    assert [checkpoint.identifier for checkpoint in checkpoints] == ["job-0", "job-1"]
    assert [checkpoint.training_metrics.validation_loss for checkpoint in checkpoints] == [1.0, 0.5]
    assert {"job", "job-0", "job-1"} <= set(model_ids(stack))
    assert [job.job_id for job in stack.training.jobs(CONTEXT)] == ["job"]


def test_without_validation_rows_there_are_checkpoints_without_metrics(stack: Backends) -> None:
    stack.training.supervised(CONTEXT, request(data_config=data(validation=None)))
    ended(stack)
    checkpoints: Any = stack.training.checkpoints(CONTEXT, "job")
    assert [checkpoint.training_metrics for checkpoint in checkpoints] == [None, None]


def test_the_same_request_again_is_the_same_job_whatever_has_become_of_it(stack: Backends, gated: GatedTrainer) -> None:
    stack.training.supervised(CONTEXT, request())
    until_first_epoch(stack)
    assert stack.training.supervised(CONTEXT, request()).state == "in_progress"
    gated.gate.set()
    ended(stack)
    assert stack.training.supervised(CONTEXT, request()).state == "completed"
    with pytest.raises(Conflict, match="with another request"):
        stack.training.supervised(CONTEXT, request(n_epochs=3))
    assert len(stack.training.jobs(CONTEXT)) == 1


def test_a_job_is_cancelled_while_it_waits_while_it_runs_and_not_when_it_is_done(
    stack: Backends, gated: GatedTrainer
) -> None:
    stack.training.supervised(CONTEXT, request("first"))
    until_first_epoch(stack, "first")
    stack.training.supervised(CONTEXT, request("waiting"))
    stack.training.cancel(CONTEXT, "waiting")
    assert status(stack, "waiting").status == "failed"
    began = time.monotonic()
    stack.training.cancel(CONTEXT, "first")
    assert ended(stack, "first").resources_allocated["reason"] == "cancelled"  # type: ignore[index]
    assert time.monotonic() - began < 5
    assert gated.forgotten == ["first"]
    assert status(stack, "waiting").checkpoints == []
    assert [checkpoint.identifier for checkpoint in status(stack, "first").checkpoints] == ["first-0"]
    assert model_ids(stack) == ["all-MiniLM-L6-v2", "base", "first-0"]

    gated.gate.set()
    stack.training.supervised(CONTEXT, request("done"))
    ended(stack, "done")
    stack.training.cancel(CONTEXT, "done")
    assert status(stack, "done").status == "completed"
    with pytest.raises(NotFound, match="'none'"):
        stack.training.cancel(CONTEXT, "none")


def test_a_job_that_finds_no_room_has_failed_for_that_reason_and_keeps_what_it_has_made(
    stack: Backends, gated: GatedTrainer
) -> None:
    gated.error = StorageFull("the state of the training cannot be written: No space left on device")
    gated.gate.set()
    stack.training.supervised(CONTEXT, request())
    assert "No space left" in ended(stack).resources_allocated["reason"]  # type: ignore[index]
    assert gated.forgotten == ["job"]
    assert model_ids(stack) == ["all-MiniLM-L6-v2", "base", "job-0"]


def test_a_job_whose_models_would_be_called_as_others_is_refused(stack: Backends, gated: GatedTrainer) -> None:
    stack.models.register(CONTEXT, m.RegisterModelRequest(model_id="taken-7", provider_id="memory"))
    with pytest.raises(Conflict, match="'taken-7' is a model already"):
        stack.training.supervised(CONTEXT, request("taken"))
    stack.training.supervised(CONTEXT, request("job-1"))
    with pytest.raises(Conflict, match="'job-1' is not done"):
        stack.training.supervised(CONTEXT, request("job"))
    with pytest.raises(Conflict, match="'job-1' is not done"):
        stack.training.supervised(CONTEXT, request("job-1-0"))
    stack.training.supervised(CONTEXT, request("job-one"))


def test_what_is_not_there_is_refused_before_the_job_by_its_place(stack: Backends) -> None:
    with pytest.raises(UnknownReference) as refused:
        stack.training.supervised(CONTEXT, request(data_config=data("none")))
    assert refused.value.where == "/training_config/data_config/dataset_id"
    with pytest.raises(UnknownReference) as refused:
        stack.training.supervised(CONTEXT, request(data_config=data(validation="none")))
    assert refused.value.where == "/training_config/data_config/validation_dataset_id"
    with pytest.raises(UnknownReference) as refused:
        stack.training.preference(
            CONTEXT,
            m.PreferenceOptimizeRequest.model_validate(
                {
                    "job_uuid": "job",
                    "finetuned_model": "none",
                    "hyperparam_search_config": {},
                    "logger_config": {},
                    "algorithm_config": DPO,
                    "training_config": training(),
                }
            ),
        )
    assert refused.value.where == "/finetuned_model"
    with pytest.raises(BadRequest, match="at most 100"):
        stack.training.supervised(CONTEXT, request("a" * 101))
    assert stack.training.jobs(CONTEXT) == []


def test_jobs_of_two_owners_have_one_name_and_nothing_of_each_other(stack: Backends) -> None:
    for owner in (ONE, OTHER):
        prepare(stack, owner)
    stack.training.supervised(ONE, request())
    assert stack.training.status(OTHER, "job") is None
    assert stack.training.checkpoints(OTHER, "job") is None
    assert stack.training.jobs(OTHER) == []
    with pytest.raises(NotFound):
        stack.training.cancel(OTHER, "job")
    ended(stack, context=ONE)
    stack.training.supervised(OTHER, request(n_epochs=1))
    assert ended(stack, context=OTHER).status == "completed"
    assert [checkpoint.identifier for checkpoint in status(stack, context=OTHER).checkpoints] == ["job-0"]
    assert len(status(stack, context=ONE).checkpoints) == 2
    assert "job-1" in model_ids(stack, ONE)
    assert "job-1" not in model_ids(stack, OTHER)
    assert stack.training.status(CONTEXT, "job") is None
