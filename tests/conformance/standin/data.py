"""Rows of datasets, scores of rows, evaluations, and data that is made up."""

from __future__ import annotations

import ast
import csv
import io
import json
import math
import re
import statistics
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from generated.models import (
    URL,
    AppendRowsRequest,
    AppEvalTaskConfig,
    BasicScoringFnParams,
    CreateAgentTurnRequest,
    Dataset,
    EvalTaskConfig,
    EvaluateResponse,
    EvaluateRowsRequest,
    InterleavedContent,
    Job,
    JobStatus,
    JsonType,
    LLMAsJudgeScoringFnParams,
    Message,
    NumberType,
    PaginatedRowsResult,
    RegexParserScoringFnParams,
    RegisterDatasetRequest,
    RunEvalRequest,
    ScoreBatchRequest,
    ScoreBatchResponse,
    ScoreRequest,
    ScoreResponse,
    ScoringFn,
    ScoringFnParams,
    ScoringResult,
    SyntheticDataGenerateRequest,
    SyntheticDataGenerationResponse,
    UserMessage,
)
from tests.conformance.standin.agents import Agents
from tests.conformance.standin.inference import LLM, prompt_of, text_of
from tests.conformance.standin.resources import PROVIDER
from tests.conformance.standin.tools import from_data_url
from tests.conformance.standin.wire import Refused

Row = dict[str, Any]
EQUALITY, SUBSET_OF = "basic::equality", "basic::subset_of"


@dataclass
class Work:
    """How far a job is: still at work when it is first looked at, done ever after."""

    looks: int = 0
    cancelled: bool = False

    def status(self) -> JobStatus:
        """Look."""
        if self.cancelled:
            return "failed"
        self.looks += 1
        return "in_progress" if self.looks == 1 else "completed"

    def cancel(self) -> None:
        """Stop it, if it is not done."""
        self.cancelled |= self.looks < 2


class Data(Agents):
    """Datasets' rows, scoring, eval, synthetic data."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, list[Row]] = {}
        self.jobs: dict[tuple[str, str], tuple[Work, EvaluateResponse]] = {}
        for name, says in ((EQUALITY, "The same text"), (SUBSET_OF, "What is expected is in the answer")):
            function = ScoringFn(
                identifier=name,
                provider_resource_id=name,
                provider_id=PROVIDER,
                description=says,
                metadata={},
                return_type=NumberType(),
                params=BasicScoringFnParams(aggregation_functions=["accuracy"]),
            )
            self.scoring_functions.put(function)

    # Datasets

    def register_dataset(self, call: None, body: RegisterDatasetRequest) -> None:
        super().register_dataset(call, body)
        self.rows.pop(body.dataset_id, None)

    def unregister_dataset(self, call: None, dataset_id: str) -> None:
        super().unregister_dataset(call, dataset_id)
        self.rows.pop(dataset_id, None)

    def rows_of(self, dataset_id: str) -> list[Row]:
        """All rows; a dataset's URL is read when they are first asked for."""
        dataset = self.datasets.used(dataset_id)
        if dataset_id not in self.rows:
            self.rows[dataset_id] = [_row(dataset, row) for row in _read(dataset.url.uri)]
        return self.rows[dataset_id]

    def get_rows_paginated(
        self,
        call: None,
        dataset_id: str,
        rows_in_page: int,
        page_token: str | None = None,
        filter_condition: str | None = None,
    ) -> PaginatedRowsResult:
        if filter_condition:
            raise Refused(400, "filter_condition: not served")
        if rows_in_page != -1 and rows_in_page < 1:
            raise Refused(400, "rows_in_page: neither positive nor -1")
        if page_token and not re.fullmatch(r"\d{1,18}", page_token, re.ASCII):
            raise Refused(400, "page_token: not one of this server")
        rows, start = self.rows_of(dataset_id), int(page_token or 0)
        end = len(rows) if rows_in_page == -1 else start + rows_in_page
        page = rows[start:end]
        more = str(end) if end < len(rows) else None
        return PaginatedRowsResult(rows=page, total_count=len(page), next_page_token=more)

    def append_rows(self, call: None, body: AppendRowsRequest) -> None:
        rows = self.rows_of(body.dataset_id)
        rows += [_row(self.datasets[body.dataset_id], row) for row in body.rows]

    # Scoring

    def score(self, call: None, body: ScoreRequest) -> ScoreResponse:
        return ScoreResponse(results=self.scores(body.input_rows, body.scoring_functions))

    def score_batch(self, call: None, body: ScoreBatchRequest) -> ScoreBatchResponse:
        rows = self.rows_of(body.dataset_id)
        results = self.scores(rows, body.scoring_functions)
        if not body.save_results_dataset:
            return ScoreBatchResponse(results=results)
        saved = f"{body.dataset_id}/scores/{uuid.uuid4()}"
        columns = {name: JsonType() for name in (*self.datasets[body.dataset_id].dataset_schema, *results)}
        request = RegisterDatasetRequest(dataset_id=saved, dataset_schema={**columns}, url=URL(uri="data:text/csv,"))
        self.register_dataset(None, request)
        scored = [{name: each.score_rows[number] for name, each in results.items()} for number in range(len(rows))]
        self.rows[saved] = [row | scores for row, scores in zip(rows, scored, strict=True)]
        return ScoreBatchResponse(dataset_id=saved, results=results)

    def scores(self, rows: list[Row], functions: dict[str, ScoringFnParams | None]) -> dict[str, ScoringResult]:
        return {name: self._scored(self.scoring_functions.used(name), rows, own) for name, own in functions.items()}

    def _scored(self, function: ScoringFn, rows: list[Row], own: ScoringFnParams | None) -> ScoringResult:
        params = own or function.params or BasicScoringFnParams()
        if params.type == "llm_as_judge":
            self.language_model(params.judge_model)
            scored = [self._judged(params, row) for row in rows]
        elif params.type == "regex_parser":
            scored = [{"score": _parsed(params, row)} for row in rows]
        else:
            within = function.identifier == SUBSET_OF
            scored = [{"score": _compared(row, within=within)} for row in rows]
        wanted = params.aggregation_functions
        if wanted is None:
            wanted = [] if params.type == "llm_as_judge" else ["accuracy"]
        numbers = [float(row["score"]) for row in scored if _is_number(row["score"])]
        aggregates = _aggregated(numbers, scored)
        aggregated: dict[str, Any] = {name: {name: aggregates[name]} for name in dict.fromkeys(wanted)}
        if "accuracy" in aggregated:
            counts = {"num_correct": float(sum(numbers)), "num_total": len(scored)}
            aggregated["accuracy"] |= counts
        return ScoringResult(score_rows=scored, aggregated_results=aggregated)

    def _judged(self, params: LLMAsJudgeScoringFnParams, row: Row) -> Row:
        prompt = params.prompt_template or "{generated_answer}"
        for column in ("input_query", "expected_answer", "generated_answer"):
            prompt = prompt.replace(f"{{{column}}}", str(row.get(column, "")))
        feedback = self.generate(params.judge_model, prompt).text
        return {"score": _first_group(params.judge_score_regexes or [], feedback), "judge_feedback": feedback}

    # Eval

    def evaluate_rows(self, call: None, task_id: str, body: EvaluateRowsRequest) -> EvaluateResponse:
        self._task(task_id)
        return self._evaluated(body.input_rows, body.scoring_functions, body.task_config)

    def run_eval(self, call: None, task_id: str, body: RunEvalRequest) -> Job:
        self._task(task_id)
        task, config = self.eval_tasks[task_id], body.task_config
        rows = self.rows_of(task.dataset_id)
        if config.num_examples is not None:
            if config.num_examples < 1:
                raise Refused(400, "task_config.num_examples: not positive")
            rows = rows[: config.num_examples]
        job = str(uuid.uuid4())
        self.jobs[task_id, job] = Work(), self._evaluated(rows, task.scoring_functions, config)
        return Job(job_id=job)

    def eval_job_status(self, call: None, task_id: str, job_id: str) -> JobStatus | None:
        if (task_id, job_id) not in self.jobs:
            return None
        work, _ = self.jobs[task_id, job_id]
        return work.status()

    def retrieve_eval_job_result(self, call: None, task_id: str, job_id: str) -> EvaluateResponse:
        status = self.eval_job_status(call, task_id, job_id)
        if status is None:
            raise Refused(404, f"job {job_id!r} not found")
        if status != "completed":
            raise Refused(409, f"job {job_id!r} has no result, it is {status}")
        return self.jobs[task_id, job_id][1]

    def cancel_eval_job(self, call: None, task_id: str, job_id: str) -> None:
        if (task_id, job_id) not in self.jobs:
            raise Refused(404, f"job {job_id!r} not found")
        self.jobs[task_id, job_id][0].cancel()

    def _task(self, task_id: str) -> None:
        if task_id not in self.eval_tasks:
            raise Refused(404, f"eval task {task_id!r} not found")

    def _evaluated(self, rows: list[Row], functions: list[str], config: EvalTaskConfig) -> EvaluateResponse:
        candidate = config.eval_candidate
        self.language_model(candidate.model if candidate.type == "model" else candidate.config.model)
        own = (config.scoring_params or {}) if isinstance(config, AppEvalTaskConfig) else {}
        generations = [{"generated_answer": self._answer(config, _messages(row))} for row in rows]
        answered = [row | generation for row, generation in zip(rows, generations, strict=True)]
        scores = self.scores(answered, {name: own.get(name) for name in functions})
        return EvaluateResponse(generations=generations, scores=scores)

    def _answer(self, config: EvalTaskConfig, messages: list[Message]) -> InterleavedContent:
        candidate = config.eval_candidate
        if candidate.type == "model":
            return self.generate(candidate.model, prompt_of(messages), candidate.sampling_params).text
        agent_id = self.new_agent(candidate.config)
        session_id = self.new_session(agent_id, "eval")
        asked = [message for message in messages if isinstance(message, UserMessage)]
        _, turn = self.run_turn(agent_id, session_id, CreateAgentTurnRequest(messages=[*asked]))
        self.delete_agent(None, agent_id)
        return turn.output_message.content

    # Synthetic data

    def generate_synthetic_data(
        self, call: None, body: SyntheticDataGenerateRequest
    ) -> SyntheticDataGenerationResponse:
        """An answer to each message of a user, scored by how its words differ. Filters keep the better half."""
        model = self.language_model(body.model or LLM).identifier
        prompts = [text_of(message.content) for message in body.dialogs if isinstance(message, UserMessage)]
        rows: list[Row] = []
        for prompt in prompts:
            response = self.generate(model, prompt).text
            words = response.split()
            rows.append({"prompt": prompt, "response": response, "score": len(set(words)) / max(1, len(words))})
        if body.filtering_function != "none":
            rows = sorted(rows, key=lambda row: -float(row["score"]))[: math.ceil(len(rows) / 2)]
        counts = {"generated": len(prompts), "filtered_out": len(prompts) - len(rows)}
        return SyntheticDataGenerationResponse(synthetic_data=rows, statistics=counts)


def _read(uri: str) -> list[Row]:
    media, content = from_data_url(uri)
    try:
        text = content.decode()
        if "json" not in media:
            return list(csv.DictReader(io.StringIO(text)))
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, csv.Error) as error:
        raise Refused(400, f"the dataset cannot be read: {error}") from None
    rows = rows[0] if len(rows) == 1 and isinstance(rows[0], list) else rows
    if not all(isinstance(row, dict) for row in rows):
        raise Refused(400, "the dataset's lines are no objects")
    return rows


def _row(dataset: Dataset, row: Row) -> Row:
    """A row with the columns of the dataset's schema and no others."""
    if missing := [name for name in dataset.dataset_schema if name not in row]:
        raise Refused(400, f"a row lacks the columns {missing}")
    return {name: _cell(row[name], column.type) for name, column in dataset.dataset_schema.items()}


def _cell(value: Any, kind: str) -> Any:
    """CSV knows texts only."""
    if not isinstance(value, str) or kind not in ("number", "boolean", "json", "array", "object"):
        return value
    try:
        return json.loads(value.lower() if kind == "boolean" else value)
    except ValueError:
        return value


def _messages(row: Row) -> list[Message]:
    """What a row asks the candidate: JSON, or the Python form that datasets of the reference server have."""
    asked = row.get("chat_completion_input", row.get("completion_input", row.get("input_query")))
    if isinstance(asked, str) and "chat_completion_input" in row:
        try:
            asked = json.loads(asked)
        except ValueError:
            try:
                asked = ast.literal_eval(asked)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                raise Refused(400, "chat_completion_input: no list of messages") from None
    if isinstance(asked, str):
        return [UserMessage(content=asked)]
    try:
        return TypeAdapter(list[Message]).validate_python(asked)
    except ValidationError:
        raise Refused(400, "a row has no chat_completion_input, completion_input or input_query") from None


def _texts(row: Row) -> tuple[str, str]:
    for column in ("expected_answer", "generated_answer"):
        if column not in row:
            raise Refused(400, f"a row lacks the column {column}")
    return str(row["expected_answer"]), str(row["generated_answer"])


def _compared(row: Row, *, within: bool) -> float:
    expected, generated = _texts(row)
    return float(expected in generated if within else expected == generated)


def _parsed(params: RegexParserScoringFnParams, row: Row) -> float:
    expected, generated = _texts(row)
    return float(_first_group(params.parsing_regexes or [], generated) == expected)


def _first_group(regexes: list[str], text: str) -> str | None:
    for regex in regexes:
        try:
            found = re.search(regex, text)
        except re.error:
            raise Refused(400, f"{regex!r} is no regular expression") from None
        if found:
            return found[1] if found.re.groups else found[0]
    return None


def _is_number(score: Any) -> bool:
    try:
        return math.isfinite(float(score))
    except (TypeError, ValueError):
        return False


def _aggregated(numbers: list[float], rows: list[Row]) -> dict[str, Any]:
    average = sum(numbers) / len(numbers) if numbers else 0.0
    return {
        "accuracy": average,
        "average": average,
        "median": statistics.median(numbers) if numbers else 0.0,
        "categorical_count": dict(Counter(str(row["score"]) for row in rows)),
    }
