"""A fixed dialog with a server that uses all 74 operations, for its answers to be looked at or compared.

It goes on whatever is answered, since the servers that it talks to may be wrong.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from generated.operations import OPERATIONS
from tests.conformance.standin import DIMENSION, ECHO_GROUP, ECHO_TOOL, EMBEDDER, FORBIDDEN, LLM, PROVIDER, SHIELD

NEVER = "00000000-0000-4000-8000-000000000000"
HELLO = {"role": "user", "content": "The quick brown fox jumps over the lazy dog"}
GREEDY = {"strategy": {"type": "greedy"}, "max_tokens": 64}
SHORT = {"strategy": {"type": "greedy"}, "max_tokens": 3}
WEATHER = {
    "tool_name": "get_weather",
    "description": "The weather of a city",
    "parameters": {
        "city": {"param_type": "string", "description": "Which", "required": True},
        "days": {"param_type": "integer", "required": True},
    },
}
CLIENT_TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": [{"name": "city", "parameter_type": "string", "description": "Which", "required": True}],
}
ANSWER = {
    "type": "json_schema",
    "json_schema": {
        "type": "object",
        "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 1}},
        "required": ["name", "age"],
    },
}
AGENT: dict[str, Any] = {
    "model": LLM,
    "instructions": "Answer.",
    "sampling_params": GREEDY,
    "enable_session_persistence": True,
    "max_infer_iters": 3,
}
TRACE, OTHER_TRACE, ROOT, CHILD = "c" * 32, "d" * 32, "c" * 16, "e" * 16
TRAINING = {
    "n_epochs": 1,
    "max_steps_per_epoch": 1,
    "gradient_accumulation_steps": 1,
    "max_validation_steps": 1,
    "data_config": {"dataset_id": "rows", "batch_size": 1, "shuffle": False, "data_format": "instruct"},
    "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-4, "weight_decay": 0.1, "num_warmup_steps": 0},
}
DPO = {"reward_scale": 1.0, "reward_clip": 1.0, "epsilon": 0.1, "gamma": 0.1}
SCORED = [
    {"input_query": "q", "expected_answer": "a", "generated_answer": "a"},
    {"input_query": "q", "expected_answer": "b", "generated_answer": "a b"},
    {"input_query": "q", "expected_answer": "c", "generated_answer": "d"},
]
EVALUATION: dict[str, Any] = {
    "type": "benchmark",
    "eval_candidate": {"type": "model", "model": LLM, "sampling_params": GREEDY},
}

# What servers make up.
_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIMES = re.compile(r"202[5-9]-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came back. operation: empty where no operation is meant. shown: the request, to compare."""

    operation: str
    shown: str
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def media(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]

    def comparable(self) -> tuple[str, int, str, str, str]:
        """What is the same each time that a right server is asked."""
        text = _TIMES.sub("<time>", _IDS.sub("<id>", self.body.decode()))
        headers = self.headers.get("content-type", ""), self.headers.get("allow", "")
        return _IDS.sub("<id>", self.shown), self.status, *headers, text

    def member(self, name: str) -> str:
        """A text member of the answer; "lost" when it is not there."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return "lost"
        found = value.get(name) if isinstance(value, dict) else None
        return found if isinstance(found, str) and found else "lost"


class Dialog:
    """Requests to a server and what came back. client: with the server's base URL."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.exchanges: list[Exchange] = []

    async def raw(self, operation: str, method: str, path: str, **request: Any) -> Exchange:
        response = await self.client.request(method, path, **request)
        shown = f"{method} {path} {request}"
        exchange = Exchange(operation, shown, response.status_code, dict(response.headers), response.content)
        self.exchanges.append(exchange)
        return exchange

    async def ask(
        self, name: str, body: Any = None, query: dict[str, str | int] | None = None, **path: str
    ) -> Exchange:
        """Use an operation. Ids go into the path as they are, as the official client writes them."""
        operation = OPERATIONS[name]
        request: dict[str, Any] = {"params": query} if query else {}
        if operation.body_model is not None:
            request["json"] = body
        return await self.raw(name, operation.method, operation.path.format(**path), **request)


async def dialog_with(
    base_url: str, transport: httpx.AsyncBaseTransport | None = None, parts: Iterable[str] = ()
) -> list[Exchange]:
    """Use all operations, and use some wrongly, with the key `secret` for servers that want one.

    transport: None for the network. parts: of `PARTS`, each of which can stand alone; all when there is none.
    """
    headers = {"authorization": "Bearer secret"}
    async with httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers, verify=False) as client:
        talk = Dialog(client)
        for part in parts or PARTS:
            await PARTS[part](talk)
    return talk.exchanges


async def _inspect(talk: Dialog) -> None:
    for name in ("health", "version", "list_providers", "list_routes"):
        await talk.ask(name)


async def _registries(talk: Dialog) -> None:
    for number in range(2):
        model = {"model_id": "org/one", "provider_model_id": LLM, "provider_id": PROVIDER}
        await talk.ask("register_model", {**model, "metadata": {"number": number}})
    await talk.ask("list_models")
    await talk.ask("retrieve_model", model_id="org/one")
    await talk.ask("unregister_model", model_id="org/one")
    await talk.ask("retrieve_model", model_id="org/one")
    await talk.ask("list_models")
    await talk.ask("unregister_model", model_id="org/never")
    await talk.ask("register_shield", {"shield_id": "org/shield", "provider_id": PROVIDER, "params": {"a": None}})
    await talk.ask("list_shields")
    await talk.ask("retrieve_shield", identifier="org/shield")
    await talk.ask("retrieve_shield", identifier="org/never")
    for word in ("fine", FORBIDDEN):
        message = {"role": "user", "content": f"This is {word}"}
        await talk.ask("run_shield", {"shield_id": SHIELD, "messages": [message], "params": {}})


async def _inference(talk: Dialog) -> None:
    chat: dict[str, Any] = {"model_id": LLM, "messages": [HELLO], "sampling_params": GREEDY}
    complete: dict[str, Any] = {"model_id": LLM, "content": "One two three four", "sampling_params": GREEDY}
    followed = [{"role": "system", "content": "Answer."}, HELLO]
    for stream in (False, True):
        await talk.ask("chat_completion", {**chat, "stream": stream})
        await talk.ask("chat_completion", {**chat, "stream": stream, "messages": followed})
        await talk.ask("chat_completion", {**chat, "stream": stream, "sampling_params": SHORT})
        await talk.ask("chat_completion", {**chat, "stream": stream, "logprobs": {"top_k": 2}})
        await talk.ask("chat_completion", {**chat, "stream": stream, "tools": [WEATHER], "tool_choice": "required"})
        await talk.ask("chat_completion", {**chat, "stream": stream, "tools": [WEATHER], "tool_choice": "auto"})
        await talk.ask("chat_completion", {**chat, "stream": stream, "response_format": ANSWER})
        await talk.ask("completion", {**complete, "stream": stream})
        await talk.ask("completion", {**complete, "stream": stream, "logprobs": {"top_k": 1}})
    await talk.ask("chat_completion", {**chat, "model_id": "org/never"})
    await talk.ask("chat_completion", {**chat, "model_id": "org/never", "stream": True})
    texts = ["a river", {"type": "text", "text": "a bank"}, "the wood"]
    for _ in range(2):
        await talk.ask("embeddings", {"model_id": EMBEDDER, "contents": texts})
    await talk.ask("embeddings", {"model_id": "org/never", "contents": texts})
    batch = ["Alpha beta", "Gamma delta", "Epsilon"]
    await talk.ask("batch_completion", {"model": LLM, "content_batch": batch, "sampling_params": GREEDY})
    dialogs = [[{"role": "user", "content": text}] for text in batch]
    await talk.ask("batch_chat_completion", {"model": LLM, "messages_batch": dialogs, "sampling_params": GREEDY})


async def _vectors(talk: Dialog) -> None:
    vector_db = {"vector_db_id": "org/db", "embedding_model": EMBEDDER, "embedding_dimension": DIMENSION}
    await talk.ask("register_vector_db", vector_db)
    await talk.ask("list_vector_dbs")
    await talk.ask("retrieve_vector_db", vector_db_id="org/db")
    await talk.ask("retrieve_vector_db", vector_db_id="org/never")
    texts = ["The river rises in spring", "A bank lends money", "Foxes sleep by day", "In spring the river floods"]
    chunks = [{"content": text, "metadata": {"document_id": f"d{n}", "n": n}} for n, text in enumerate(texts)]
    await talk.ask("insert_chunks", {"vector_db_id": "org/db", "chunks": chunks})
    query = {"vector_db_id": "org/db", "query": "The river rises in spring"}
    for params in ({"max_chunks": 4}, {"max_chunks": 1}, {"max_chunks": 4, "score_threshold": 0.6}):
        await talk.ask("query_chunks", {**query, "params": params})
    await talk.ask("query_chunks", {**query, "vector_db_id": "org/never"})
    document = {"document_id": "fox", "content": "The fox lives in the wood", "mime_type": "text/plain", "metadata": {}}
    insert = {"documents": [document], "vector_db_id": "org/db", "chunk_size_in_tokens": 64}
    await talk.ask("rag_insert", insert)
    await talk.ask("rag_query", {"content": "Where does the fox live", "vector_db_ids": ["org/db"]})
    await talk.ask("unregister_vector_db", vector_db_id="org/db")
    await talk.ask("list_vector_dbs")


async def _tools(talk: Dialog) -> None:
    await talk.ask("register_tool_group", {"toolgroup_id": "org::tools", "provider_id": PROVIDER})
    await talk.ask("list_tool_groups")
    await talk.ask("get_tool_group", toolgroup_id="org::tools")
    await talk.ask("get_tool_group", toolgroup_id="org::never")
    await talk.ask("list_tools")
    await talk.ask("list_tools", query={"toolgroup_id": ECHO_GROUP})
    await talk.ask("get_tool", tool_name=ECHO_TOOL)
    await talk.ask("list_runtime_tools", query={"tool_group_id": ECHO_GROUP})
    await talk.ask("list_runtime_tools")
    await talk.ask("invoke_tool", {"tool_name": ECHO_TOOL, "kwargs": {"text": "again"}})
    await talk.ask("invoke_tool", {"tool_name": "never", "kwargs": {}})
    await talk.ask("unregister_tool_group", toolgroup_id="org::tools")
    await talk.ask("list_tool_groups")


async def _agents(talk: Dialog) -> None:
    shields = {"input_shields": [SHIELD], "output_shields": [SHIELD]}
    agent = (await talk.ask("create_agent", {"agent_config": {**AGENT, **shields}})).member("agent_id")
    session = (await talk.ask("create_session", {"session_name": "talk"}, agent_id=agent)).member("session_id")
    where: dict[str, Any] = {"agent_id": agent, "session_id": session}
    turns = []
    for number, content in enumerate(("Hello there you", f"This is {FORBIDDEN}", "And good bye")):
        message = {"role": "user", "content": content}
        for stream in (True, False):
            turn = await talk.ask("create_turn", {"messages": [message], "stream": stream}, **where)
            turns.append((turn.member("turn_id"), number))
    document = {"content": "The fox is red", "mime_type": "text/plain"}
    body = {"messages": [{"role": "user", "content": "Which colour"}], "documents": [document]}
    await talk.ask("create_turn", body, **where)
    await talk.ask("retrieve_session", **where)
    turn_id = next((turn for turn, _ in turns if turn != "lost"), "lost")
    await talk.ask("retrieve_session", query={"turn_ids": turn_id}, **where)
    found = await talk.ask("retrieve_turn", turn_id=turn_id, **where)
    step_id = re.search(rb'"step_id": ?"([^"]+)"', found.body)
    await talk.ask("retrieve_step", turn_id=turn_id, step_id=step_id[1].decode() if step_id else "lost", **where)
    await talk.ask("retrieve_turn", turn_id=NEVER, **where)
    await _agents_with_tools(talk)
    await talk.ask("delete_session", **where)
    await talk.ask("retrieve_session", **where)
    await talk.ask("delete_agent", agent_id=agent)
    await talk.ask("create_session", {"session_name": "late"}, agent_id=agent)
    await talk.ask("delete_agent", agent_id=NEVER)


async def _agents_with_tools(talk: Dialog) -> None:
    """A tool of the server, then one of the client, whose result the next turn brings."""
    for tools in ({"toolgroups": [ECHO_GROUP]}, {"client_tools": [CLIENT_TOOL]}):
        config = {**AGENT, **tools, "tool_choice": "required"}
        agent = (await talk.ask("create_agent", {"agent_config": config})).member("agent_id")
        session = (await talk.ask("create_session", {"session_name": "talk"}, agent_id=agent)).member("session_id")
        where: dict[str, Any] = {"agent_id": agent, "session_id": session}
        await talk.ask("create_turn", {"messages": [HELLO], "stream": True}, **where)
        turn = await talk.ask("create_turn", {"messages": [HELLO], "stream": False}, **where)
        await talk.ask("retrieve_turn", turn_id=turn.member("turn_id"), **where)
        if "client_tools" in tools:
            call = re.search(rb'"call_id": ?"([^"]+)"', turn.body)
            result = {"role": "tool", "call_id": call[1].decode() if call else "lost", "tool_name": "get_weather"}
            body = {"messages": [{**result, "content": "Sunny"}], "stream": True}
            await talk.ask("create_turn", body, **where)
        await talk.ask("delete_agent", agent_id=agent)


async def _datasets(talk: Dialog) -> None:
    texts = {name: {"type": "string"} for name in ("input_query", "expected_answer", "generated_answer")}
    lines = "\n".join(json.dumps(row) for row in SCORED)
    csv = "input_query,expected_answer,generated_answer\n" + "".join(f"q{n},Paris,Paris\n" for n in range(5))
    urls = {"org/jsonl": f"data:application/jsonl,{quote(lines)}", "rows": f"data:text/csv,{quote(csv)}"}
    for name, uri in urls.items():
        await talk.ask("register_dataset", {"dataset_id": name, "dataset_schema": texts, "url": {"uri": uri}})
    await talk.ask("list_datasets")
    await talk.ask("retrieve_dataset", dataset_id="org/jsonl")
    await talk.ask("retrieve_dataset", dataset_id="org/never")
    await talk.ask("append_rows", {"dataset_id": "rows", "rows": [SCORED[0]]})
    token = ""
    for _ in range(5):
        query: dict[str, str | int] = {"dataset_id": "rows", "rows_in_page": 2}
        page = await talk.ask("get_rows_paginated", query={**query, "page_token": token} if token else query)
        token = page.member("next_page_token")
        if token == "lost":
            break
    await talk.ask("get_rows_paginated", query={"dataset_id": "org/jsonl", "rows_in_page": -1})
    await talk.ask("get_rows_paginated", query={"dataset_id": "org/never", "rows_in_page": 2})


async def _scores(talk: Dialog) -> None:
    await talk.ask("list_scoring_functions")
    aggregates = ["accuracy", "average", "median", "categorical_count"]
    function = {
        "scoring_fn_id": "org/equality",
        "description": "Exactly that",
        "return_type": {"type": "number"},
        "params": {"type": "basic", "aggregation_functions": aggregates},
    }
    await talk.ask("register_scoring_function", function)
    await talk.ask("retrieve_scoring_function", scoring_fn_id="org/equality")
    functions = {"basic::equality": None, "basic::subset_of": None, "org/equality": None}
    await talk.ask("score", {"input_rows": SCORED, "scoring_functions": functions})
    await talk.ask("score", {"input_rows": SCORED, "scoring_functions": {"org/never": None}})
    await talk.ask("score_batch", {"dataset_id": "org/jsonl", "scoring_functions": functions})
    task = {"eval_task_id": "org/task", "dataset_id": "rows", "scoring_functions": ["basic::equality"]}
    await talk.ask("register_eval_task", task)
    await talk.ask("list_eval_tasks")
    await talk.ask("retrieve_eval_task", eval_task_id="org/task")
    rows = [{"chat_completion_input": json.dumps([HELLO]), "expected_answer": HELLO["content"]}]
    evaluation = {"input_rows": rows, "scoring_functions": ["basic::equality"], "task_config": EVALUATION}
    await talk.ask("evaluate_rows", evaluation, task_id="org/task")
    for cancel in (False, True):
        config = EVALUATION if cancel else {**EVALUATION, "num_examples": 2}
        job = (await talk.ask("run_eval", {"task_config": config}, task_id="org/task")).member("job_id")
        where: dict[str, Any] = {"task_id": "org/task", "job_id": job}
        if cancel:
            await talk.ask("cancel_eval_job", **where)
        for _ in range(2):
            await talk.ask("eval_job_status", **where)
        await talk.ask("retrieve_eval_job_result", **where)
    await talk.ask("eval_job_status", task_id="org/task", job_id=NEVER)


async def _telemetry(talk: Dialog) -> None:
    for trace, prefix in ((TRACE, "c"), (OTHER_TRACE, "d")):
        root, child = prefix * 16, ("e" if prefix == "c" else "f") * 16
        for span, name, parent in ((root, "outer", None), (child, "inner", root)):
            start = {"type": "span_start", "name": name, **({"parent_span_id": parent} if parent else {})}
            for second, payload in ((0, start), (1, {"type": "span_end", "status": "ok"})):
                event = {
                    "type": "structured_log",
                    "trace_id": trace,
                    "span_id": span,
                    "timestamp": f"2024-01-01T00:00:0{second}Z",
                    "attributes": {"kind": f"{prefix}-{name}"} if second == 0 else {},
                    "payload": payload,
                }
                await talk.ask("log_event", {"event": event, "ttl_seconds": 3600})
    await talk.ask("query_traces", query={"limit": 10, "order_by": "-trace_id"})
    await talk.ask("query_traces", query={"limit": 1})
    await talk.ask("get_trace", trace_id=TRACE)
    await talk.ask("get_trace", trace_id="0" * 32)
    await talk.ask("get_span", trace_id=TRACE, span_id=CHILD)
    await talk.ask("get_span_tree", span_id=ROOT)
    await talk.ask("get_span_tree", query={"max_depth": 1, "attributes_to_return": "kind"}, span_id=ROOT)
    filters = json.dumps([{"key": "kind", "op": "eq", "value": "c-inner"}])
    await talk.ask("query_spans", query={"attribute_filters": filters, "attributes_to_return": "kind"})
    columns = {name: {"type": "string"} for name in ("trace_id", "kind")}
    dataset = {"dataset_id": "org/spans", "dataset_schema": columns, "url": {"uri": "data:application/jsonl,"}}
    await talk.ask("register_dataset", dataset)
    saved = {"attribute_filters": json.loads(filters), "attributes_to_save": ["kind"], "dataset_id": "org/spans"}
    await talk.ask("save_spans_to_dataset", saved)
    await talk.ask("get_rows_paginated", query={"dataset_id": "org/spans", "rows_in_page": -1})


async def _jobs(talk: Dialog) -> None:
    extra: dict[str, Any] = {"training_config": TRAINING, "hyperparam_search_config": {}, "logger_config": {}}
    await talk.ask("supervised_fine_tune", {"job_uuid": "job/one", "model": LLM, **extra})
    await talk.ask("preference_optimize", {"job_uuid": "two", "finetuned_model": LLM, "algorithm_config": DPO, **extra})
    await talk.ask("list_training_jobs")
    await talk.ask("cancel_training_job", {"job_uuid": "two"})
    for job in ("job/one", "job/one", "two", "never"):
        await talk.ask("training_job_status", query={"job_uuid": job})
    await talk.ask("training_job_artifacts", query={"job_uuid": "job/one"})
    dialogs = [HELLO, {"role": "user", "content": "one one one two"}]
    await talk.ask("generate_synthetic_data", {"dialogs": dialogs, "filtering_function": "top_k", "model": LLM})
    await talk.ask("unregister_dataset", dataset_id="org/jsonl")
    await talk.ask("unregister_dataset", dataset_id="org/never")


async def _wrong_requests(talk: Dialog) -> None:
    """What is refused."""
    json_type = {"content-type": "application/json"}
    for body in (b"{broken", b'{"model_id": 5}', b"{}"):
        await talk.raw("register_model", "POST", "/v1/models", content=body, headers=json_type)
    text_type = {"content-type": "text/plain"}
    await talk.raw("register_model", "POST", "/v1/models", content=b"model_id=a", headers=text_type)
    for messages in ({}, {"messages": "Hello"}):
        await talk.ask("chat_completion", {"model_id": LLM, **messages})
    await talk.ask("get_rows_paginated", query={"dataset_id": "rows", "rows_in_page": "many"})
    await talk.raw("", "GET", "/v1/nothing")
    wrong = {"health": "/v1/health", "list_models": "/v1/models", "chat_completion": "/v1/inference/chat-completion"}
    for operation, path in (*wrong.items(), ("retrieve_vector_db", "/v1/vector-dbs/org/db")):
        await talk.raw(operation, "PATCH", path)
    for key in ("", "Bearer wrong"):
        await talk.raw("list_models", "GET", "/v1/models", headers={"authorization": key})


async def _many_at_once(talk: Dialog) -> None:
    """Several clients, whose exchanges are kept in the order in which they asked."""
    many = [Dialog(talk.client) for _ in range(4)]
    chat: dict[str, Any] = {"model_id": LLM, "sampling_params": GREEDY}
    requests = [
        each.ask("chat_completion", {**chat, "messages": [{"role": "user", "content": f"I am client {number}"}]})
        for number, each in enumerate(many)
    ]
    await asyncio.gather(*requests)
    for each in many:
        talk.exchanges += each.exchanges


async def _data(talk: Dialog) -> None:
    for part in (_datasets, _scores, _jobs):
        await part(talk)


PARTS: dict[str, Callable[[Dialog], Awaitable[None]]] = {
    "inspect": _inspect,
    "registries": _registries,
    "inference": _inference,
    "vectors": _vectors,
    "tools": _tools,
    "agents": _agents,
    "data": _data,
    "telemetry": _telemetry,
    "wrong requests": _wrong_requests,
    "many at once": _many_at_once,
}
