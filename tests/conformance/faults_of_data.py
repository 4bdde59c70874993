"""Faults of datasets, scores, evaluations, telemetry, training and data that is made up."""

from __future__ import annotations

from typing import Any

from tests.conformance.seeding import answered, asked, remembering, whole
from tests.conformance.tampering import Answer, Ask, Request, Tamper


@answered("get_rows_paginated", says="The first row of every page but the first is skipped.")
def paging_loses_row(request: Request, answer: Answer) -> Answer:
    if not answer.whole or "page_token=" not in request.query:
        return answer
    page = answer.json()
    return answer.with_json({**page, "rows": page["rows"][1:], "total_count": max(0, len(page["rows"]) - 1)})


@remembering("get_rows_paginated", says="Every page but the first begins with the last row of the page before.")
def paging_doubles_row() -> Tamper:
    last: list[Any] = []

    async def tamper(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if request.operation != "get_rows_paginated" or not answer.whole:
            return answer
        page = answer.json()
        rows = [*last, *page["rows"]] if "page_token=" in request.query else page["rows"]
        last[:] = page["rows"][-1:]
        return answer.with_json({**page, "rows": rows, "total_count": len(rows)})

    return tamper


@whole("get_rows_paginated", says="There is no next_page_token though there are more rows.")
def paging_ends_too_early(value: Any) -> Any:
    return {name: member for name, member in value.items() if name != "next_page_token"}


@remembering("get_rows_paginated", says="next_page_token leads to the same page for ever.")
def paging_never_ends() -> Tamper:
    async def tamper(request: Request, ask: Ask) -> Answer:
        if request.operation != "get_rows_paginated":
            return await ask(request)
        answer = await ask(request.with_query(page_token=None))
        return answer.with_json({**answer.json(), "next_page_token": "1"}) if answer.whole else answer

    return tamper


@whole("get_rows_paginated", says="total_count is 0 though there are rows.")
def paging_counts_nothing(value: Any) -> Any:
    return {**value, "total_count": 0}


@asked("get_rows_paginated", says="rows_in_page is ignored: all rows come at once.")
def rows_in_page_ignored(request: Request) -> Request:
    return request.with_query(rows_in_page="-1")


@whole("get_rows_paginated", says="A column of the rows is lost.")
def column_lost(value: Any) -> Any:
    for row in value["rows"]:
        del row[next(iter(row))]
    return value


@asked("append_rows", "get_rows_paginated", says="Rows that were appended are not there.")
def appended_rows_lost(request: Request) -> Request | Answer:
    return Answer.of(None) if request.operation == "append_rows" else request


SCORES = ("score", "score_batch")


@whole(*SCORES, says="The score of the first row is the opposite of what it should be.")
def score_wrong(value: Any) -> Any:
    for result in value["results"].values():
        row = result["score_rows"][0]
        row["score"] = 1.0 - float(row["score"])
    return value


@whole(*SCORES, says="The accuracy is not that of the scores.")
def aggregation_wrong(value: Any) -> Any:
    for result in value["results"].values():
        accuracy = result["aggregated_results"]["accuracy"]
        accuracy["accuracy"] = accuracy["accuracy"] / 2 + 0.05
    return value


@whole(*SCORES, says="A row has no score.")
def score_row_lost(value: Any) -> Any:
    for result in value["results"].values():
        result["score_rows"].pop()
    return value


@whole(*SCORES, says="One of the scoring functions that were asked for has no result.")
def scoring_function_lost(value: Any) -> Any:
    value["results"].popitem()
    return value


@answered(*SCORES, says="A scoring function that is not there is answered with status 200.")
def unknown_scoring_function_is_200(request: Request, answer: Answer) -> Answer:
    return Answer.of({"results": {}}) if answer.status in (400, 404) else answer


@whole("eval_job_status", says="The status of a job is `done`, which the contract does not have.")
def eval_status_invalid(value: Any) -> Any:
    return "done"


@whole("eval_job_status", says="A job is in progress for ever.")
def eval_job_never_ends(value: Any) -> Any:
    return value and "in_progress"


@whole("eval_job_status", says="The status of a job is an object instead of a string.")
def eval_status_as_object(value: Any) -> Any:
    return {"status": value}


@whole("run_eval", "eval_job_status", says="A job gets an id under which it is not found.")
def eval_job_of_other_id(value: Any) -> Any:
    return {"job_id": f"{value['job_id']}0"}


@asked("run_eval", "retrieve_eval_job_result", says="num_examples is ignored: all rows are evaluated.")
def num_examples_ignored(request: Request) -> Request:
    body = request.json()
    body["task_config"].pop("num_examples", None)
    return request.with_json(body)


EVALUATIONS = ("evaluate_rows", "retrieve_eval_job_result")


@whole(*EVALUATIONS, says="The result of an evaluation has no scores.")
def eval_result_without_scores(value: Any) -> Any:
    return {**value, "scores": {}}


@whole(*EVALUATIONS, says="A row of an evaluation has no generation.")
def eval_generation_lost(value: Any) -> Any:
    return {**value, "generations": value["generations"][:-1]}


@asked("cancel_eval_job", "eval_job_status", says="To cancel a job does nothing but answer well.")
def eval_cancel_ignored(request: Request) -> Request | Answer:
    return Answer.of(None) if request.operation == "cancel_eval_job" else request


TREES = ("get_span_tree", "query_spans")


@remembering(*TREES, says="Among the spans of a trace is one of another trace.")
def trace_mixed_with_another() -> Tamper:
    reported: dict[str, str] = {"f" * 16: "f" * 32}

    async def tamper(request: Request, ask: Ask) -> Answer:
        if request.operation == "log_event":
            event = request.json().get("event", {})
            if isinstance(event.get("span_id"), str) and isinstance(event.get("trace_id"), str):
                reported[event["span_id"]] = event["trace_id"]
        answer = await ask(request)
        if request.operation not in TREES or not answer.whole or not answer.json()["data"]:
            return answer
        data = answer.json()["data"]
        spans = list(data.values()) if isinstance(data, dict) else data
        here = {span["trace_id"] for span in spans}
        other = next((span_id, trace_id) for span_id, trace_id in reported.items() if trace_id not in here)
        stranger = {**spans[-1], "span_id": other[0], "trace_id": other[1]}
        return answer.with_json({"data": {**data, other[0]: stranger} if isinstance(data, dict) else [*data, stranger]})

    return tamper


@whole("get_span", "get_span_tree", says="Spans have lost their parents.")
def span_parent_lost(value: Any) -> Any:
    for span in value["data"].values() if "data" in value else [value]:
        span.pop("parent_span_id", None)
    return value


@whole("get_span", "get_span_tree", says="Spans have lost their attributes.")
def span_attributes_lost(value: Any) -> Any:
    for span in value["data"].values() if "data" in value else [value]:
        span["attributes"] = {}
    return value


@asked("log_event", "get_span", "get_trace", says="That a span ended is not kept: it has no end_time.")
def span_end_lost(request: Request) -> Request | Answer:
    if request.operation == "log_event" and request.json()["event"]["payload"]["type"] == "span_end":
        return Answer.of(None)
    return request


@asked("query_traces", "query_spans", says="attribute_filters is ignored: all traces come.")
def attribute_filters_ignored(request: Request) -> Request:
    return request.with_query(attribute_filters="[]")


@asked("get_span_tree", says="max_depth is ignored.")
def max_depth_ignored(request: Request) -> Request:
    return request.with_query(max_depth=None)


@asked("query_traces", says="limit is ignored.")
def limit_ignored(request: Request) -> Request:
    return request.with_query(limit=None)


@asked("query_traces", says="order_by is ignored.")
def order_by_ignored(request: Request) -> Request:
    return request.with_query(order_by=None)


@asked("save_spans_to_dataset", "get_rows_paginated", says="Spans that were saved are not in the dataset.")
def saved_spans_lost(request: Request) -> Request | Answer:
    return Answer.of(None) if request.operation == "save_spans_to_dataset" else request


@whole("training_job_artifacts", says="A job that is completed has no checkpoints.")
def training_artifacts_empty(value: Any) -> Any:
    return {**value, "checkpoints": []}


@asked("cancel_training_job", "training_job_status", says="To cancel a training job does nothing but answer well.")
def training_cancel_ignored(request: Request) -> Request | Answer:
    return Answer.of(None) if request.operation == "cancel_training_job" else request


@whole("training_job_status", says="A training job is in progress for ever.")
def training_never_ends(value: Any) -> Any:
    return {**value, "status": "in_progress"}


@whole("training_job_status", says="The status of a training job is `running`, which the contract does not have.")
def training_status_invalid(value: Any) -> Any:
    return {**value, "status": "running"}


@whole("list_training_jobs", says="Training jobs are not listed.")
def training_jobs_not_listed(value: Any) -> Any:
    return {"data": []}


@whole("supervised_fine_tune", "preference_optimize", says="A training job gets another id than was asked for.")
def training_job_of_other_id(value: Any) -> Any:
    return {"job_uuid": f"{value['job_uuid']}-1"}


@whole("generate_synthetic_data", says="No data is made up.")
def synthetic_data_empty(value: Any) -> Any:
    return {**value, "synthetic_data": []}
