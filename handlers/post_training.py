"""PostTraining (Coming Soon): `generated.api.PostTraining`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import (
    CancelTrainingJobRequest,
    ListPostTrainingJobsResponse,
    PostTrainingJob,
    PostTrainingJobArtifactsResponse,
    PostTrainingJobStatusResponse,
    PreferenceOptimizeRequest,
    SupervisedFineTuneRequest,
)
from handlers.call import Call


def cancel_training_job(call: Call, body: CancelTrainingJobRequest) -> None:
    """POST /v1/post-training/job/cancel"""
    raise NotBuilt("cancel_training_job")


def training_job_artifacts(call: Call, job_uuid: str) -> PostTrainingJobArtifactsResponse | None:
    """GET /v1/post-training/job/artifacts"""
    raise NotBuilt("training_job_artifacts")


def training_job_status(call: Call, job_uuid: str) -> PostTrainingJobStatusResponse | None:
    """GET /v1/post-training/job/status"""
    raise NotBuilt("training_job_status")


def list_training_jobs(call: Call) -> ListPostTrainingJobsResponse:
    """GET /v1/post-training/jobs"""
    raise NotBuilt("list_training_jobs")


def preference_optimize(call: Call, body: PreferenceOptimizeRequest) -> PostTrainingJob:
    """POST /v1/post-training/preference-optimize"""
    raise NotBuilt("preference_optimize")


def supervised_fine_tune(call: Call, body: SupervisedFineTuneRequest) -> PostTrainingJob:
    """POST /v1/post-training/supervised-fine-tune"""
    raise NotBuilt("supervised_fine_tune")
