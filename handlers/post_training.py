"""Post-training: fine-tuning jobs, whose results are models that can be asked at once."""

from __future__ import annotations

from generated.models import (
    CancelTrainingJobRequest,
    ListPostTrainingJobsResponse,
    PostTrainingJob,
    PostTrainingJobArtifactsResponse,
    PostTrainingJobRef,
    PostTrainingJobStatusResponse,
    PreferenceOptimizeRequest,
    SupervisedFineTuneRequest,
)
from handlers.call import Call


def cancel_training_job(call: Call, body: CancelTrainingJobRequest) -> None:
    """End a job, as failed."""
    call.backends.training.cancel(call.context, body.job_uuid)


def training_job_artifacts(call: Call, job_uuid: str) -> PostTrainingJobArtifactsResponse | None:
    """The checkpoints of a job, null for an unknown one."""
    checkpoints = call.backends.training.checkpoints(call.context, job_uuid)
    if checkpoints is None:
        return None
    return PostTrainingJobArtifactsResponse(job_uuid=job_uuid, checkpoints=checkpoints)


def training_job_status(call: Call, job_uuid: str) -> PostTrainingJobStatusResponse | None:
    """How a job stands, null for an unknown one."""
    return call.backends.training.status(call.context, job_uuid)


def list_training_jobs(call: Call) -> ListPostTrainingJobsResponse:
    """All fine-tuning jobs, oldest first."""
    jobs = call.backends.training.jobs(call.context)
    return ListPostTrainingJobsResponse(data=[PostTrainingJobRef(job_uuid=job.job_id) for job in jobs])


def preference_optimize(call: Call, body: PreferenceOptimizeRequest) -> PostTrainingJob:
    """Schedule a preference optimisation."""
    return PostTrainingJob(job_uuid=call.backends.training.preference(call.context, body).job_id)


def supervised_fine_tune(call: Call, body: SupervisedFineTuneRequest) -> PostTrainingJob:
    """Schedule a supervised fine-tuning."""
    return PostTrainingJob(job_uuid=call.backends.training.supervised(call.context, body).job_id)
