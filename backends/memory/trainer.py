"""A trainer that learns nothing: for tests, and for trying out jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backends.errors import BadRequest
from backends.jobs.records import Job
from backends.jobs.running import RunningJob
from backends.ports import JsonObject, TrainedEpoch
from backends.training.plan import Plan


class MemoryTrainer:
    """ModelTrainer whose trained models are the model itself; the loss halves with each epoch, from 1."""

    def check(self, plan: Plan, model: str) -> None:
        return

    def forget(self, job: Job) -> None:
        return

    def train(
        self,
        job: RunningJob,
        plan: Plan,
        model: str,
        rows: Sequence[JsonObject],
        validation: Sequence[JsonObject],
        done: int,
    ) -> Iterator[TrainedEpoch]:
        if not rows:
            raise BadRequest("the dataset is empty", where="/training_config/data_config/dataset_id")
        for epoch in range(done, plan.training.n_epochs):
            job.progress(epoch=epoch, rows=len(rows))
            loss = 0.5**epoch
            held_out = (loss, 2.0**loss) if validation else (None, None)
            yield TrainedEpoch(epoch, model, f"memory/{job.job.job_id}/{epoch}", loss, *held_out)
