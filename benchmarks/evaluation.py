"""Rows evaluated per second, beside the same prompts given to the engine itself in one batch.

Both sides use one engine in this process, in turns. The evaluation reads its dataset, saves what it has every few rows
and scores the answers; the peer only generates.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from backends.config import INPROC, BackendSettings, EngineSettings, JobSettings, ProviderSettings
from backends.context import CallContext
from backends.generation import collect_all
from backends.inference import ChatPrompt, GenerateRequest, Sampling
from backends.models.store import ModelStore
from backends.stack import Backends, open_backends
from benchmarks.report import Row, show
from benchmarks.sides import LLM
from generated.models import (
    EvaluateRowsRequest,
    RegisterDatasetRequest,
    RegisterEvalTaskRequest,
    RunEvalRequest,
    UserMessage,
)

ROWS = 128
TOKENS = 32
_CONTEXT = CallContext(request_id="bench")
_TASK = "bench"


def measure(models: Path, *, threads: int, repeat: int, rows: int = ROWS) -> list[Row]:
    """Rows/s of a job and of `evaluate_rows`, against the bare engine."""
    asked = [
        {
            "input_query": f"Question {row}",
            "expected_answer": str(row),
            "chat_completion_input": [
                {"role": "user", "content": f"Question {row}: tell me a few things about the number {row * 37 % 101}."}
            ],
        }
        for row in range(rows)
    ]
    with tempfile.TemporaryDirectory(prefix="onnxstack-bench-") as folder:
        stack = open_backends(
            BackendSettings(
                data_dir=Path(folder),
                models_dir=models,
                engine=EngineSettings(address=INPROC, threads=threads, prefix_cache_mb=0),
                jobs=JobSettings(runner="thread"),
                providers=(
                    ProviderSettings(api="inference", provider_id="onnx", provider_type="inline::onnx"),
                    ProviderSettings(api="datasetio", provider_id="lancedb", provider_type="inline::lancedb"),
                    ProviderSettings(api="scoring", provider_id="basic", provider_type="inline::basic"),
                    ProviderSettings(api="eval", provider_id="jobs", provider_type="inline::jobs"),
                ),
            )
        )
        try:
            _register(stack, asked)
            return _measure(stack, asked, repeat)
        finally:
            stack.close()


def _register(stack: Backends, asked: list[dict[str, object]]) -> None:
    kinds = {"input_query": "string", "expected_answer": "string", "chat_completion_input": "chat_completion_input"}
    schema = {name: {"type": kind} for name, kind in kinds.items()}
    empty = {"dataset_id": _TASK, "dataset_schema": schema, "url": {"uri": "data:application/jsonl,"}}
    stack.datasets.register(_CONTEXT, RegisterDatasetRequest.model_validate(empty))
    stack.datasets.append(_CONTEXT, _TASK, asked, where="/dataset_id")
    stack.eval_tasks.register(
        _CONTEXT,
        RegisterEvalTaskRequest(eval_task_id=_TASK, dataset_id=_TASK, scoring_functions=["basic::subset_of"]),
    )


def _measure(stack: Backends, asked: list[dict[str, object]], repeat: int) -> list[Row]:
    """By the clock, and by the time of the processors, which a busy machine distorts less."""
    sides: list[Callable[[], None]] = [
        lambda: _engine(stack, asked),
        lambda: _job(stack),
        lambda: _rows(stack, asked),
    ]
    seconds: list[list[tuple[float, float]]] = [[] for _ in sides]
    _engine(stack, asked[:4])
    for turn in range(repeat):
        for number in range(len(sides)):
            side = (number + turn) % len(sides)  # who begins changes
            seconds[side].append(_timed(sides[side]))
    rows = []
    for unit, which in (("rows/s", 0), ("rows/CPU s", 1)):
        speeds = [[len(asked) / sample[which] for sample in samples] for samples in seconds]
        for name, ours in (("evaluation, a job", speeds[1]), ("evaluation, rows of a request", speeds[2])):
            rows.append(Row(name, unit, ours, "the engine itself", speeds[0], goal=">= 0.85x"))
    return rows


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and of the processors."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _config() -> dict[str, object]:
    sampling = {"strategy": {"type": "greedy"}, "max_tokens": TOKENS}
    return {"type": "benchmark", "eval_candidate": {"type": "model", "model": LLM, "sampling_params": sampling}}


def _engine(stack: Backends, asked: list[dict[str, object]]) -> None:
    generator, model = stack.models.generator(_CONTEXT, LLM)
    requests = [
        GenerateRequest(
            model,
            ChatPrompt((UserMessage.model_validate(row["chat_completion_input"][0]),)),  # type: ignore[index]
            Sampling(max_tokens=TOKENS),
        )
        for row in asked
    ]
    for _ in collect_all(generator, _CONTEXT, requests, where=""):
        pass


def _job(stack: Backends) -> None:
    request = RunEvalRequest.model_validate({"task_config": _config()})
    job = stack.evaluation.submit(_CONTEXT, _TASK, request)
    while (state := stack.evaluation.status(_CONTEXT, _TASK, job.job_id)) in ("scheduled", "in_progress"):
        time.sleep(0.02)
    if state != "completed":
        stack.evaluation.result(_CONTEXT, _TASK, job.job_id)  # says why


def _rows(stack: Backends, asked: list[dict[str, object]]) -> None:
    request = EvaluateRowsRequest.model_validate(
        {"input_rows": asked, "scoring_functions": ["basic::subset_of"], "task_config": _config()}
    )
    stack.evaluation.evaluate_rows(_CONTEXT, _TASK, request)


def main() -> None:
    """Only this section: `python -m benchmarks.evaluation [--rows N] [--repeat N] [--models DIR] [--json FILE]`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"each answered with {TOKENS} tokens")
    parser.add_argument("--repeat", type=int, default=5, help="samples of each figure (default 5)")
    parser.add_argument("--threads", type=int, default=0, help="threads of the engine; 0 for one per core")
    parser.add_argument("--models", type=Path, default=Path("~/.cache/onnxstack-bench/models").expanduser())
    parser.add_argument("--json", type=Path, default=None, help="also write all samples to this file")
    options = parser.parse_args()
    ModelStore(options.models).pull(LLM)
    show(measure(options.models, threads=options.threads, repeat=options.repeat, rows=options.rows), options.json)


if __name__ == "__main__":
    main()
