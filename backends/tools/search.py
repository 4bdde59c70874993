"""Web search by Brave and Tavily, and answers of Wolfram Alpha, with the caller's key or the operator's.

The APIs: https://api-dashboard.search.brave.com/app/documentation, https://docs.tavily.com/documentation/api-reference,
https://products.wolframalpha.com/api/documentation. The services are the operator's choice, so that they are not
subject to what clients may name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx2

from backends.context import CallContext
from backends.errors import BadRequest
from backends.ports import JsonObject, Resource, ToolFile, ToolResult
from backends.tools.mcp import failure
from backends.tools.schemas import plain_json
from backends.tools.settings import SearchSettings
from generated.models import URL, ToolDef, ToolParameter

HEADER = "X-LlamaStack-Provider-Data"
MAX_BYTES = 4_000_000
MAX_TEXT = 2000
"""Characters of one result that a model is shown."""


_PLAIN = {"accept-encoding": "identity"}
"""What is compressed could unfold to any size before it is counted."""
Read = Callable[..., JsonObject]
"""`_json` of one call, without its first three arguments."""


class _Service:
    """A service that answers a query: what the three have in common."""

    def __init__(
        self,
        settings: SearchSettings,
        group: str,
        tool: ToolDef,
        key: str,
        ask: Callable[[Read, SearchSettings, str, str], JsonObject],
    ) -> None:
        self._settings = settings
        self._group = group
        self._tool = tool
        self._key = key
        self._ask = ask

    def list_tools(self, context: CallContext, toolgroup_id: str, endpoint: URL | None) -> list[ToolDef]:
        if toolgroup_id != self._group or endpoint is not None:
            raise BadRequest(f"this provider serves the tool group `{self._group}`", where="/toolgroup_id")
        return [self._tool.model_copy(deep=True)]

    def invoke(
        self, context: CallContext, tool: Resource, group: Resource, arguments: JsonObject, files: Sequence[ToolFile]
    ) -> ToolResult:
        query = arguments.get("query")
        if not isinstance(query, str) or not query.strip():
            raise BadRequest("`query` must be a text", where="/kwargs/query")
        key = context.provider_data.get(self._key)
        if not key and self._settings.api_key is not None:
            key = self._settings.api_key.get_secret_value()
        if not key:
            return failure(
                f"{self._tool.name} needs a key of its service: send it in the header {HEADER} as "
                f'{{"{self._key}": "..."}}, or let the operator set `api_key` of the provider'
            )
        deadline = time.monotonic() + self._settings.timeout_s

        def read(method: str, url: str, **request: Any) -> JsonObject:
            return _json(client, context, deadline, method, url, **request)

        try:
            with httpx2.Client(timeout=self._settings.timeout_s, trust_env=False, headers=_PLAIN) as client:
                found = plain_json(self._ask(read, self._settings, key, query))
            # Who repeats a key must not make it part of a conversation.
            return ToolResult(json.dumps(found, ensure_ascii=False).replace(key, "[key]"))
        except httpx2.HTTPStatusError as error:
            return failure(f"{self._tool.name}: the service answered with the status {error.response.status_code}")
        except httpx2.TimeoutException:
            return failure(f"{self._tool.name}: the service did not answer in time")
        except (httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return failure(f"{self._tool.name}: the service gave no answer that can be used")


def _query_tool(name: str, description: str) -> ToolDef:
    query = ToolParameter(name="query", parameter_type="string", description="What to look for.", required=True)
    return ToolDef(name=name, description=description, parameters=[query], metadata={})


_WEB = _query_tool("web_search", "Search the web.")
_WOLFRAM = _query_tool("wolfram_alpha", "Compute, or look up facts, with Wolfram Alpha.")


def brave_search(settings: SearchSettings) -> _Service:
    """ToolRuntime of `builtin::websearch` by Brave; its key is `brave_search_api_key`."""

    def ask(read: Read, settings: SearchSettings, key: str, query: str) -> JsonObject:
        found = read(
            "GET",
            f"{settings.base_url or 'https://api.search.brave.com'}/res/v1/web/search",
            params={"q": query, "count": str(settings.max_results)},
            headers={"x-subscription-token": key, "accept": "application/json"},
        )
        results = found.get("web", {}).get("results", [])
        return _results(query, settings, results, "title", "url", "description")

    return _Service(settings, "builtin::websearch", _WEB, "brave_search_api_key", ask)


def tavily_search(settings: SearchSettings) -> _Service:
    """ToolRuntime of `builtin::websearch` by Tavily; its key is `tavily_search_api_key`."""

    def ask(read: Read, settings: SearchSettings, key: str, query: str) -> JsonObject:
        found = read(
            "POST",
            f"{settings.base_url or 'https://api.tavily.com'}/search",
            json={"query": query, "max_results": settings.max_results},
            headers={"authorization": f"Bearer {key}"},
        )
        return _results(query, settings, found.get("results", []), "title", "url", "content")

    return _Service(settings, "builtin::websearch", _WEB, "tavily_search_api_key", ask)


def wolfram_alpha(settings: SearchSettings) -> _Service:
    """ToolRuntime of `builtin::wolfram_alpha`; its key is `wolfram_alpha_api_key`."""

    def ask(read: Read, settings: SearchSettings, key: str, query: str) -> JsonObject:
        found = read(
            "GET",
            f"{settings.base_url or 'https://api.wolframalpha.com'}/v2/query",
            params={"input": query, "appid": key, "output": "json", "format": "plaintext"},
        )["queryresult"]
        pods = [
            {"title": str(pod.get("title", "")), "text": _cut("\n".join(_texts(pod)))}
            for pod in found.get("pods", [])
            if _texts(pod)
        ]
        return {"query": query, "success": bool(found.get("success")), "pods": pods[: settings.max_results]}

    return _Service(settings, "builtin::wolfram_alpha", _WOLFRAM, "wolfram_alpha_api_key", ask)


def _json(
    client: httpx2.Client, context: CallContext, deadline: float, method: str, url: str, **request: Any
) -> JsonObject:
    """The object that a service answers with. Raises HTTPError, ValueError, TypeError; Cancelled, DeadlineExceeded."""
    with client.stream(method, url, **request) as answer:
        answer.raise_for_status()
        data = bytearray()
        for chunk in answer.iter_raw():
            context.check()
            data += chunk
            if len(data) > MAX_BYTES:
                raise ValueError("too long")
            if time.monotonic() > deadline:
                raise httpx2.ReadTimeout("it goes on and on")
    found = json.loads(data)
    if not isinstance(found, dict):
        raise TypeError("no object")
    return found


def _results(
    query: str, settings: SearchSettings, results: list[JsonObject], title: str, url: str, content: str
) -> JsonObject:
    return {
        "query": query,
        "results": [
            {
                "title": _cut(str(r.get(title, ""))),
                "url": _cut(str(r.get(url, ""))),
                "content": _cut(str(r.get(content, ""))),
            }
            for r in results[: settings.max_results]
        ],
    }


def _texts(pod: JsonObject) -> list[str]:
    return [str(sub["plaintext"]) for sub in pod.get("subpods", []) if sub.get("plaintext")]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
