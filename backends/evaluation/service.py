"""The operations of the eval API: rows at once, and tasks as jobs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from pydantic import TypeAdapter

from backends.context import CallContext
from backends.errors import BadRequest, Conflict, NotFound, UnknownReference
from backends.evaluation.candidates import Candidates
from backends.jobs.records import Job
from backends.jobs.running import RunningJob
from backends.jobs.service import Jobs
from backends.ports import JsonObject
from backends.resources import Datasets, EvalTasks
from backends.resources.datasets import HeldRows
from backends.scoring.service import Scoring
from generated.models import (
    AppEvalTaskConfig,
    EvalTask,
    EvalTaskConfig,
    EvaluateResponse,
    EvaluateRowsRequest,
    JobStatus,
    RunEvalRequest,
    ScoringFnParams,
)

CHUNK = 32
"""Rows that a job answers between two saves: what a killed attempt loses."""
_CONFIG: TypeAdapter[EvalTaskConfig] = TypeAdapter(EvalTaskConfig)
_CONFIG_AT = "/task_config"


class Evaluation:
    """Runs evaluation tasks."""

    def __init__(
        self,
        tasks: EvalTasks,
        datasets: Datasets,
        candidates: Candidates,
        scoring: Scoring,
        jobs: Jobs,
    ) -> None:
        self._tasks = tasks
        self._datasets = datasets
        self._candidates = candidates
        self._scoring = scoring
        self._jobs = jobs

    def evaluate_rows(self, context: CallContext, task_id: str, request: EvaluateRowsRequest) -> EvaluateResponse:
        """Let the candidate answer the rows, and score the answers, within this call.

        Raises:
            NotFound: no such task. BadRequest, UnknownReference: of the configuration, a row or a function, by place.
        """
        self._task(context, task_id)
        functions = _functions(request.scoring_functions, request.task_config)
        self._scoring.check(context, functions, functions_where="/scoring_functions")
        rows = request.input_rows[: request.task_config.num_examples]
        self._scoring.check_size(len(rows), functions, where="/input_rows")
        candidate = self._candidates.open(context, request.task_config.eval_candidate)
        try:
            generations = list(candidate.answers(rows, where="/input_rows"))
        finally:
            candidate.close()
        return self._scored(context, rows, generations, functions, where="/input_rows")

    def submit(self, context: CallContext, task_id: str, request: RunEvalRequest) -> Job:
        """Schedule the evaluation of a task on its dataset.

        Raises:
            NotFound: no such task. BadRequest, UnknownReference: what can be known of the job's failure already.
            Conflict: the task names a dataset or a function that is not registered.
        """
        task = self._task(context, task_id)
        functions = _functions(task.scoring_functions, request.task_config)
        try:
            self._scoring.check(context, functions, functions_where=_CONFIG_AT)
            self._datasets.check(context, task.dataset_id, where="task_id")
        except UnknownReference as error:  # the request is right, what the task was registered with is not there
            raise Conflict(f"eval task {task_id!r} cannot be run: {error.message}", where="task_id") from None
        self._candidates.check(context, request.task_config.eval_candidate)
        return self._jobs.submit(context, "eval", task_id, request.model_dump(mode="json", exclude_none=True))

    def status(self, context: CallContext, task_id: str, job_id: str) -> JobStatus | None:
        """The state of a job of the task, None where there is no such job."""
        job = self._job(context, task_id, job_id)
        return None if job is None else job.state

    def cancel(self, context: CallContext, task_id: str, job_id: str) -> None:
        """End a job of the task as failed; one that has ended stays as it is. Raises NotFound."""
        self._existing(context, task_id, job_id)
        self._jobs.cancel(context, "eval", job_id, where="job_id")

    def result(self, context: CallContext, task_id: str, job_id: str) -> EvaluateResponse:
        """What a completed job of the task has found.

        Raises:
            NotFound: no such job. Conflict: it is not completed; the message says how it stands, or why it failed.
        """
        job = self._existing(context, task_id, job_id)
        if job.state == "failed":
            raise Conflict(f"job {job_id!r} has failed: {job.reason}", where="job_id")
        if job.result is None:
            raise Conflict(f"job {job_id!r} is {job.state}; ask again when its status is completed", where="job_id")
        generations = [generation for part in self._jobs.parts(job) for generation in part["generations"]]
        return EvaluateResponse.model_validate({"generations": generations, "scores": job.result["scores"]})

    def work(self, job: RunningJob) -> JsonObject:
        """Do a job: answers are saved chunk by chunk, and an attempt goes on after what was saved.

        Raises:
            StackError: it has failed. Cancelled.
        """
        context = job.context
        task = self._tasks.get(context, job.job.subject)
        if task is None:
            raise BadRequest(f"eval task {job.job.subject!r} is gone")
        config = _CONFIG.validate_python(job.job.request["task_config"])
        functions = _functions(task.scoring_functions, config)
        self._scoring.check(context, functions, functions_where=_CONFIG_AT)
        rows = self._datasets.held(context, task.dataset_id, where="/dataset_id", most=config.num_examples)
        self._scoring.check_size(len(rows), functions, where="/dataset_id")
        saved = [len(part["generations"]) for part in job.parts()]
        done = sum(saved)
        candidate = self._candidates.open(context, config.eval_candidate, job.job.job_id)
        try:
            answers = candidate.answers(rows.after(done), where=f"row {done} and on")
            # The chunks are of what is saved; the engine has the next rows while one is written down.
            for part in itertools.count(len(saved)):
                chunk = list(itertools.islice(answers, CHUNK))
                if not chunk:
                    break
                job.save_part(part, {"generations": chunk})
                done += len(chunk)
                job.progress(answered=done, rows=len(rows))
        finally:
            candidate.close()
        answered = _Answered(rows, job)
        scores = self._scoring.score(context, answered, functions, where="/dataset_id") if rows else {}
        return {"scores": {name: result.model_dump(mode="json") for name, result in scores.items()}}

    def _scored(
        self,
        context: CallContext,
        rows: Sequence[JsonObject],
        generations: Sequence[JsonObject],
        functions: Mapping[str, ScoringFnParams | None],
        *,
        where: str,
    ) -> EvaluateResponse:
        answered = [{**row, **generation} for row, generation in zip(rows, generations, strict=True)]
        scores = self._scoring.score(context, answered, functions, where=where) if answered else {}
        return EvaluateResponse(generations=list(generations), scores=dict(scores))

    def _task(self, context: CallContext, task_id: str) -> EvalTask:
        task = self._tasks.get(context, task_id)
        if task is None:
            raise NotFound(f"eval task {task_id!r} not found", where="task_id")
        return task

    def _job(self, context: CallContext, task_id: str, job_id: str) -> Job | None:
        job = self._jobs.get(context, "eval", job_id)
        if job is None or job.subject != task_id:
            return None
        if job.state == "failed" and job.request["task_config"]["eval_candidate"]["type"] == "agent":
            self._candidates.discard(context, job_id)
        return job

    def _existing(self, context: CallContext, task_id: str, job_id: str) -> Job:
        job = self._job(context, task_id, job_id)
        if job is None:
            raise NotFound(f"eval task {task_id!r} has no job {job_id!r}", where="job_id")
        return job


class _Answered:
    """The rows of a job with their generations, iterated anew each time."""

    def __init__(self, rows: HeldRows, job: RunningJob) -> None:
        self._rows = rows
        self._job = job

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[JsonObject]:
        generations = (generation for part in self._job.parts() for generation in part["generations"])
        return ({**row, **generation} for row, generation in zip(self._rows, generations, strict=True))


def _functions(names: Sequence[str], config: EvalTaskConfig) -> dict[str, ScoringFnParams | None]:
    """The functions with the parameters of an app's configuration; a benchmark takes those they are registered with."""
    if config.num_examples is not None and config.num_examples < 0:
        raise BadRequest("num_examples must be 0 or more", where=f"{_CONFIG_AT}/num_examples")
    given = config.scoring_params or {} if isinstance(config, AppEvalTaskConfig) else {}
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise BadRequest(
            f"scoring_params are for {unknown[0]!r}, which is no function of this evaluation: {', '.join(names)}",
            where=f"{_CONFIG_AT}/scoring_params",
        )
    return {name: given.get(name) for name in names}
