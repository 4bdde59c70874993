"""A fixed set of requests, at least one per operation, in an order in which each finds what it needs.

Run against the real profile, where lengths are capped so that the whole set takes seconds.
`tests/contract/test_operations.py` turns what came back into the table of operations in README.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from generated.operations import OPERATIONS

LLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDER = "all-MiniLM-L6-v2"
GREEDY = {"strategy": {"type": "greedy"}, "max_tokens": 8}
USER = {"role": "user", "content": "Give me three tips for staying healthy."}
NEVER = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Case:
    """One request. path, query: values by parameter name; body: JSON, None for no body.

    A value `<agent_id>` stands for what the member `agent_id` of an earlier answer was; see `learnt`.
    """

    operation: str
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def method(self) -> str:
        return OPERATIONS[self.operation].method

    def url(self, known: Mapping[str, str]) -> str:
        """The path with its parameters in it, raw as the official client writes them."""
        path = {name: known.get(value, value) for name, value in self.path.items()}
        return OPERATIONS[self.operation].path.format(**path)


def learnt(answer: Any) -> dict[str, str]:
    """What later cases may ask for: the ids that the server made, `<agent_id>` and the like."""
    if not isinstance(answer, dict):
        return {}
    found = {f"<{name}>": answer[name] for name in ("agent_id", "session_id", "turn_id", "job_id") if name in answer}
    steps = answer.get("steps") or [{}]
    return found | ({"<step_id>": steps[0]["step_id"]} if "step_id" in steps[0] else {})


def _chat(**more: Any) -> dict[str, Any]:
    return {"model_id": LLM, "messages": [USER], "sampling_params": GREEDY, **more}


def _span_query() -> dict[str, str]:
    return {"attribute_filters": '[{"key":"a","op":"eq","value":"b"}]', "attributes_to_return": "a,b"}


AGENT = {
    "model": LLM,
    "instructions": "Answer briefly.",
    "enable_session_persistence": False,
    "max_infer_iters": 1,
    "sampling_params": GREEDY,
}
SESSION = {"agent_id": "<agent_id>", "session_id": "<session_id>"}
TURN = {**SESSION, "turn_id": "<turn_id>"}
TRAINING = {
    "n_epochs": 1,
    "max_steps_per_epoch": 1,
    "gradient_accumulation_steps": 1,
    "max_validation_steps": 1,
    "data_config": {"dataset_id": "contract::spans", "batch_size": 1, "shuffle": False, "data_format": "instruct"},
    "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-4, "weight_decay": 0.1, "num_warmup_steps": 0},
}
JOB = {"task_id": "contract::task", "job_id": "<job_id>"}
ROW = {
    "chat_completion_input": "[{'role': 'user', 'content': 'Capital of France?'}]",
    "expected_answer": "Paris",
    "generated_answer": "Paris",
}
EVAL_CONFIG = {
    "type": "benchmark",
    "eval_candidate": {"type": "model", "model": LLM, "sampling_params": GREEDY},
}
TRACE, SPAN = "c" * 32, "c" * 16


CASES = [
    Case("health"),
    Case("version"),
    Case("list_providers"),
    Case("list_routes"),
    Case("list_models"),
    Case("register_model", body={"model_id": "contract/llm", "provider_model_id": LLM, "provider_id": "onnx"}),
    Case("retrieve_model", {"model_id": "contract/llm"}),
    Case("retrieve_model", {"model_id": "contract/unknown"}),
    Case("unregister_model", {"model_id": "contract/llm"}),
    Case("chat_completion", body=_chat()),
    Case("chat_completion", body=_chat(stream=True, logprobs={"top_k": 2})),
    Case("completion", body={"model_id": LLM, "content": "The river", "sampling_params": GREEDY}),
    Case("completion", body={"model_id": LLM, "content": "The river", "sampling_params": GREEDY, "stream": True}),
    Case("embeddings", body={"model_id": EMBEDDER, "contents": ["a river", {"type": "text", "text": "a bank"}]}),
    Case("batch_completion", body={"model": LLM, "content_batch": ["One", "Two"], "sampling_params": GREEDY}),
    Case("batch_chat_completion", body={"model": LLM, "messages_batch": [[USER], [USER]], "sampling_params": GREEDY}),
    Case(
        "register_vector_db",
        body={"vector_db_id": "contract/db", "embedding_model": EMBEDDER, "embedding_dimension": 384},
    ),
    Case("list_vector_dbs"),
    Case("retrieve_vector_db", {"vector_db_id": "contract/db"}),
    Case(
        "insert_chunks",
        body={
            "vector_db_id": "contract/db",
            "chunks": [{"content": "The river rises in spring.", "metadata": {"document_id": "d1", "n": 1}}],
        },
    ),
    Case("query_chunks", body={"vector_db_id": "contract/db", "query": "spring flood", "params": {"max_chunks": 1}}),
    Case(
        "rag_insert",
        body={
            "documents": [{"document_id": "d", "content": "text", "metadata": {}}],
            "vector_db_id": "contract/db",
            "chunk_size_in_tokens": 64,
        },
    ),
    Case("rag_query", body={"content": "text", "vector_db_ids": ["contract/db"]}),
    Case("unregister_vector_db", {"vector_db_id": "contract/db"}),
    Case("register_shield", body={"shield_id": "contract/shield"}),
    Case("list_shields"),
    Case("retrieve_shield", {"identifier": "contract/shield"}),
    Case("run_shield", body={"shield_id": "contract/shield", "messages": [USER], "params": {}}),
    Case(
        "register_dataset",
        body={
            "dataset_id": "contract::data",
            "dataset_schema": {name: {"type": "string"} for name in ROW},
            "url": {"uri": f"data:application/jsonl,{quote(json.dumps(ROW))}"},
        },
    ),
    Case("list_datasets"),
    Case("retrieve_dataset", {"dataset_id": "contract::data"}),
    Case("get_rows_paginated", query={"dataset_id": "contract::data", "rows_in_page": "1"}),
    Case("append_rows", body={"dataset_id": "contract::data", "rows": [ROW]}),
    Case(
        "register_scoring_function",
        body={
            "scoring_fn_id": "contract::equality",
            "description": "Exact match",
            "return_type": {"type": "number"},
            "params": {"type": "basic"},
        },
    ),
    Case("list_scoring_functions"),
    Case("retrieve_scoring_function", {"scoring_fn_id": "contract::equality"}),
    Case(
        "score",
        body={
            "input_rows": [{"input_query": "q", "expected_answer": "a", "generated_answer": "a"}],
            "scoring_functions": {"basic::equality": None},
        },
    ),
    Case("score_batch", body={"dataset_id": "contract::data", "scoring_functions": {"basic::equality": None}}),
    Case(
        "register_eval_task",
        body={
            "eval_task_id": "contract::task",
            "dataset_id": "contract::data",
            "scoring_functions": ["basic::equality"],
        },
    ),
    Case("list_eval_tasks"),
    Case("retrieve_eval_task", {"eval_task_id": "contract::task"}),
    Case(
        "evaluate_rows",
        {"task_id": "contract::task"},
        body={"input_rows": [ROW], "scoring_functions": ["basic::equality"], "task_config": EVAL_CONFIG},
    ),
    Case("run_eval", {"task_id": "contract::task"}, body={"task_config": EVAL_CONFIG}),
    Case("eval_job_status", {"task_id": "contract::task", "job_id": NEVER}),
    Case("eval_job_status", JOB),
    Case("retrieve_eval_job_result", JOB),
    Case("cancel_eval_job", JOB),
    Case("unregister_dataset", {"dataset_id": "contract::data"}),
    Case("register_tool_group", body={"toolgroup_id": "builtin::wolfram_alpha", "provider_id": "wolfram-alpha"}),
    Case("list_tool_groups"),
    Case("get_tool_group", {"toolgroup_id": "builtin::wolfram_alpha"}),
    Case("list_tools"),
    Case("get_tool", {"tool_name": "wolfram_alpha"}),
    Case("list_runtime_tools", query={"tool_group_id": "builtin::wolfram_alpha"}),
    Case("invoke_tool", body={"tool_name": "wolfram_alpha", "kwargs": {"query": "1 + 1"}}),
    Case("unregister_tool_group", {"toolgroup_id": "builtin::wolfram_alpha"}),
    Case("create_agent", body={"agent_config": AGENT}),
    Case("create_session", {"agent_id": "<agent_id>"}, body={"session_name": "s"}),
    Case("create_turn", SESSION, body={"messages": [USER], "stream": True}),
    Case("create_turn", SESSION, body={"messages": [USER], "stream": False}),
    Case("retrieve_session", SESSION),
    Case("retrieve_turn", TURN),
    Case("retrieve_step", {**TURN, "step_id": "<step_id>"}),
    Case("delete_session", SESSION),
    Case("delete_agent", {"agent_id": "<agent_id>"}),
    Case(
        "log_event",
        body={
            "event": {
                "type": "structured_log",
                "trace_id": TRACE,
                "span_id": SPAN,
                "timestamp": "2026-01-01T00:00:00Z",
                "payload": {"type": "span_start", "name": "contract"},
            },
            "ttl_seconds": 3600,
        },
    ),
    Case("query_traces", query={"limit": "1"}),
    Case("get_trace", {"trace_id": TRACE}),
    Case("get_span", {"trace_id": TRACE, "span_id": SPAN}),
    Case("get_span_tree", {"span_id": SPAN}),
    Case("query_spans", query=_span_query()),
    Case(
        "register_dataset",
        body={
            "dataset_id": "contract::spans",
            "dataset_schema": {"a": {"type": "string"}},
            "url": {"uri": "data:application/jsonl,"},
        },
    ),
    Case(
        "save_spans_to_dataset",
        body={
            "attribute_filters": [{"key": "a", "op": "eq", "value": "b"}],
            "attributes_to_save": ["a"],
            "dataset_id": "contract::spans",
        },
    ),
    Case(
        "supervised_fine_tune",
        body={
            "job_uuid": NEVER,
            "training_config": TRAINING,
            "hyperparam_search_config": {},
            "logger_config": {},
            "model": LLM,
        },
    ),
    Case(
        "preference_optimize",
        body={
            "job_uuid": NEVER,
            "finetuned_model": LLM,
            "algorithm_config": {"reward_scale": 1.0, "reward_clip": 1.0, "epsilon": 0.1, "gamma": 0.1},
            "training_config": TRAINING,
            "hyperparam_search_config": {},
            "logger_config": {},
        },
    ),
    Case("list_training_jobs"),
    Case("training_job_status", query={"job_uuid": NEVER}),
    Case("training_job_artifacts", query={"job_uuid": NEVER}),
    Case("cancel_training_job", body={"job_uuid": NEVER}),
    Case("generate_synthetic_data", body={"dialogs": [USER], "filtering_function": "none"}),
]
