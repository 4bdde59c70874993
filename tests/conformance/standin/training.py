"""Training jobs, which train nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from generated.models import (
    CancelTrainingJobRequest,
    Checkpoint,
    JobStatus,
    ListPostTrainingJobsResponse,
    PostTrainingJob,
    PostTrainingJobArtifactsResponse,
    PostTrainingJobRef,
    PostTrainingJobStatusResponse,
    PreferenceOptimizeRequest,
    SupervisedFineTuneRequest,
    TrainingConfig,
)
from tests.conformance.standin.agents import now
from tests.conformance.standin.data import Work
from tests.conformance.standin.telemetry import Telemetry
from tests.conformance.standin.wire import Refused


@dataclass
class Training:
    """A job that trains."""

    uuid: str
    model: str
    epochs: int
    scheduled_at: datetime
    work: Work = field(default_factory=Work)

    def checkpoints(self, status: JobStatus) -> list[Checkpoint]:
        """One for each epoch, when the job is completed."""
        epochs = range(self.epochs if status == "completed" else 0)
        return [
            Checkpoint(
                identifier=f"{self.model}-{self.uuid}-{epoch}",
                created_at=self.scheduled_at,
                epoch=epoch,
                post_training_job_id=self.uuid,
                path=f"checkpoints/{epoch}",
            )
            for epoch in epochs
        ]


class PostTraining(Telemetry):
    """Supervised fine-tuning and preference optimisation."""

    def __init__(self) -> None:
        super().__init__()
        self.trainings: dict[str, Training] = {}

    def supervised_fine_tune(self, call: None, body: SupervisedFineTuneRequest) -> PostTrainingJob:
        return self._train(body.job_uuid, body.model, body.training_config)

    def preference_optimize(self, call: None, body: PreferenceOptimizeRequest) -> PostTrainingJob:
        return self._train(body.job_uuid, body.finetuned_model, body.training_config)

    def _train(self, job_uuid: str, model: str | None, config: TrainingConfig) -> PostTrainingJob:
        if not job_uuid:
            raise Refused(400, "job_uuid: empty")
        if job_uuid in self.trainings:
            raise Refused(409, f"job_uuid: there is a job {job_uuid!r} already")
        models = [each.identifier for each in self.models.values() if each.model_type == "llm"]
        if model is not None and model not in models:
            raise Refused(400, f"model {model!r} cannot be trained")
        if not model and not models:
            raise Refused(400, "no model is there to be trained")
        if not 1 <= config.n_epochs <= 100:
            raise Refused(400, "training_config.n_epochs: not 1 to 100")
        self.rows_of(config.data_config.dataset_id)
        self.trainings[job_uuid] = Training(job_uuid, model or models[0], config.n_epochs, now())
        return PostTrainingJob(job_uuid=job_uuid)

    def list_training_jobs(self, call: None) -> ListPostTrainingJobsResponse:
        return ListPostTrainingJobsResponse(data=[PostTrainingJobRef(job_uuid=each) for each in self.trainings])

    def training_job_status(self, call: None, job_uuid: str) -> PostTrainingJobStatusResponse | None:
        job = self.trainings.get(job_uuid)
        if job is None:
            return None
        status = job.work.status()
        return PostTrainingJobStatusResponse(
            job_uuid=job_uuid,
            status=status,
            scheduled_at=job.scheduled_at,
            started_at=job.scheduled_at,
            completed_at=job.scheduled_at if status == "completed" else None,
            checkpoints=job.checkpoints(status),
        )

    def training_job_artifacts(self, call: None, job_uuid: str) -> PostTrainingJobArtifactsResponse | None:
        job = self.trainings.get(job_uuid)
        if job is None:
            return None
        checkpoints = job.checkpoints(job.work.status())
        return PostTrainingJobArtifactsResponse(job_uuid=job_uuid, checkpoints=checkpoints)

    def cancel_training_job(self, call: None, body: CancelTrainingJobRequest) -> None:
        if body.job_uuid not in self.trainings:
            raise Refused(404, f"job {body.job_uuid!r} not found")
        self.trainings[body.job_uuid].work.cancel()
