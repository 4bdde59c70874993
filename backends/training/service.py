"""The operations of the post_training API on jobs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from backends.context import CallContext
from backends.errors import BadRequest, Cancelled, Conflict, NoProvider, NotFound, StackError
from backends.jobs.records import FINAL, Job
from backends.jobs.running import RunningJob
from backends.jobs.service import Jobs
from backends.ports import JsonObject, ModelTrainer, TrainedEpoch
from backends.providers import Providers
from backends.resources import Datasets, Models
from backends.resources.rules import check_id
from backends.training.plan import Plan, plan_of, preference_plan, supervised_plan
from generated.models import (
    Checkpoint,
    PostTrainingJobStatusResponse,
    PreferenceOptimizeRequest,
    RegisterModelRequest,
    SupervisedFineTuneRequest,
)

_DATASET = "/training_config/data_config/dataset_id"
_VALIDATION = "/training_config/data_config/validation_dataset_id"
LONGEST_ID = 100
"""Characters of a job's id: names of models and directories are made of it."""


class Training:
    """Fine-tuning jobs."""

    def __init__(self, providers: Providers, models: Models, datasets: Datasets, jobs: Jobs) -> None:
        self._providers = providers
        self._models = models
        self._datasets = datasets
        self._jobs = jobs

    def supervised(self, context: CallContext, request: SupervisedFineTuneRequest) -> Job:
        """Schedule a supervised fine-tuning; the same request again is the same job.

        Raises:
            BadRequest, Unsupported, UnknownReference, Forbidden: what can be known already. Conflict: the id is taken.
        """
        body: JsonObject = {"kind": "supervised", "request": request.model_dump(mode="json", exclude_none=True)}
        return self._submit(context, request.job_uuid, supervised_plan(request), body)

    def preference(self, context: CallContext, request: PreferenceOptimizeRequest) -> Job:
        """Schedule a preference optimisation, as `supervised` does."""
        body: JsonObject = {"kind": "preference", "request": request.model_dump(mode="json", exclude_none=True)}
        return self._submit(context, request.job_uuid, preference_plan(request), body)

    def jobs(self, context: CallContext) -> list[Job]:
        """All jobs, oldest first. Raises NoProvider."""
        self._providers.require("post_training")
        return self._jobs.list(context, "post_training")

    def status(self, context: CallContext, job_uuid: str) -> PostTrainingJobStatusResponse | None:
        """How a job stands; `resources_allocated` has its progress, and the reason of a failure. None: no such job."""
        job = self._jobs.get(context, "post_training", job_uuid)
        if job is None:
            return None
        return PostTrainingJobStatusResponse(
            job_uuid=job_uuid,
            status=job.state,
            scheduled_at=job.created_at,
            started_at=job.started_at,
            completed_at=job.finished_at,
            resources_allocated={**job.progress, **({"reason": job.reason} if job.reason else {})},
            checkpoints=list(self._checkpoints(job)),
        )

    def checkpoints(self, context: CallContext, job_uuid: str) -> list[Checkpoint] | None:
        """What a job has made so far; None: no such job."""
        job = self._jobs.get(context, "post_training", job_uuid)
        return None if job is None else list(self._checkpoints(job))

    def cancel(self, context: CallContext, job_uuid: str) -> None:
        """End a job as failed; one that has ended stays as it is. Raises NotFound."""
        if self._jobs.get(context, "post_training", job_uuid) is None:
            raise NotFound(f"job {job_uuid!r} not found", where="/job_uuid")
        self._jobs.cancel(context, "post_training", job_uuid, where="/job_uuid")

    def work(self, job: RunningJob) -> JsonObject:
        """Do a job: each epoch becomes a model `<job>-<epoch>`, the last one the model of the job's own name too.

        Raises:
            StackError: it has failed. Cancelled.
        """
        trainer = self._trainer()
        try:
            return self._work(job, trainer)
        except Cancelled:
            if job.is_unwanted():
                trainer.forget(job.job)
            raise
        except Conflict:  # another attempt goes on, from the states of this one
            raise
        except StackError:
            trainer.forget(job.job)
            raise

    def _work(self, job: RunningJob, trainer: ModelTrainer) -> JsonObject:
        context, plan = job.context, plan_of(job.job.request)
        provider_id, base = self._models.stored_name(context, plan.model, where="/model")
        data = plan.training.data_config
        rows = list(self._datasets.read(context, data.dataset_id, where=_DATASET))
        held_out = (
            list(self._datasets.read(context, data.validation_dataset_id, where=_VALIDATION))
            if data.validation_dataset_id
            else []
        )
        done = list(job.parts())
        for epoch in trainer.train(job, plan, base, rows, held_out, len(done)):
            served = f"{job.job.job_id}-{epoch.epoch}"
            self._serve(context, served, epoch.model, provider_id, plan, epoch.epoch)
            part: JsonObject = {"model": epoch.model, "checkpoint": _checkpoint(job.job.job_id, served, epoch)}
            job.save_part(epoch.epoch, part)
            done.append(part)
        self._serve(context, job.job.job_id, done[-1]["model"], provider_id, plan, len(done) - 1)
        return {"model": job.job.job_id}

    def _submit(self, context: CallContext, job_uuid: str, plan: Plan, body: JsonObject) -> Job:
        check_id(job_uuid, where="/job_uuid")
        if len(job_uuid) > LONGEST_ID:
            raise BadRequest(f"job_uuid has at most {LONGEST_ID} characters", where="/job_uuid")
        trainer = self._trainer()
        if self._jobs.get(context, "post_training", job_uuid) is None:
            self._check_names(context, job_uuid)
        field = "/model" if plan.preference is None else "/finetuned_model"
        _, base = self._models.stored_name(context, plan.model, where=field)
        data = plan.training.data_config
        self._datasets.check(context, data.dataset_id, where=_DATASET)
        if data.validation_dataset_id:
            self._datasets.check(context, data.validation_dataset_id, where=_VALIDATION)
        trainer.check(plan, base)
        return self._jobs.submit(context, "post_training", plan.model, body, job_uuid)

    def _check_names(self, context: CallContext, job_uuid: str) -> None:
        """Return if no model is called as those of the job will be. Raises Conflict."""
        for model in self._models.list(context):
            if _makes(job_uuid, model.identifier):
                raise Conflict(
                    f"{model.identifier!r} is a model already, and a model of the job would be called so",
                    where="/job_uuid",
                )
        for other in self._jobs.list(context, "post_training"):
            if other.state not in FINAL and (_makes(job_uuid, other.job_id) or _makes(other.job_id, job_uuid)):
                raise Conflict(
                    f"the job {other.job_id!r} is not done, and a model of it would be called as one of this job",
                    where="/job_uuid",
                )

    def _trainer(self) -> ModelTrainer:
        trainer = self._providers.resolve("post_training", None).trainer
        if trainer is None:
            raise NoProvider("post_training")
        return trainer

    def _serve(
        self, context: CallContext, model_id: str, stored: str, provider_id: str, plan: Plan, epoch: int
    ) -> None:
        """Register a trained model."""
        request = RegisterModelRequest(
            model_id=model_id,
            provider_id=provider_id,
            provider_model_id=stored,
            model_type="llm",
            metadata={"base_model": plan.model, "epoch": epoch},
        )
        self._models.register(context, request)

    def _checkpoints(self, job: Job) -> Iterator[Checkpoint]:
        for part in self._jobs.parts(job):
            yield Checkpoint.model_validate(part["checkpoint"])


def _makes(job_uuid: str, model_id: str) -> bool:
    """Whether a model of the job is called so."""
    return re.fullmatch(f"{re.escape(job_uuid)}(-[0-9]+)?", model_id) is not None


def _checkpoint(job_id: str, identifier: str, epoch: TrainedEpoch) -> JsonObject:
    checkpoint: JsonObject = {
        "identifier": identifier,
        "created_at": datetime.now(UTC).isoformat(),
        "epoch": epoch.epoch,
        "post_training_job_id": job_id,
        "path": epoch.path,
    }
    if epoch.validation_loss is not None and epoch.perplexity is not None:
        checkpoint["training_metrics"] = {
            "epoch": epoch.epoch,
            "train_loss": epoch.train_loss,
            "validation_loss": epoch.validation_loss,
            "perplexity": epoch.perplexity,
        }
    return checkpoint
