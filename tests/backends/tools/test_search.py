"""Web search and Wolfram Alpha against a stand-in that speaks as their pages say."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from backends.context import CallContext, Secrets
from backends.errors import BadRequest
from backends.ports import Resource, ToolResult
from backends.tools.arguments import checked
from backends.tools.search import SearchSettings, brave_search, tavily_search, wolfram_alpha

GROUP = Resource("tool_group", "g", "p", "g")
TOOL = Resource("tool", "t", "p", "t")
KEY = "canary-key-77"
FOUND = {"title": "T", "url": "https://t.example", "content": "c" * 5000, "description": "d"}


class _Service(http.server.BaseHTTPRequestHandler):
    seen: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012 - what a test looks at

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if self.path.startswith("/res/v1/web/search"):
            self._key(self.headers["x-subscription-token"])
            self._json({"web": {"results": [FOUND] * 9}})
        else:
            self._key(query["appid"][0])
            pods = [{"title": "Result", "subpods": [{"plaintext": "2"}]}, {"title": "Empty", "subpods": [{}]}]
            self._json({"queryresult": {"success": True, "pods": pods}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._key(self.headers["authorization"].removeprefix("Bearer "))
        self._json({"results": [FOUND] * 9})

    def _key(self, key: str) -> None:
        if key != KEY:
            self.send_error(401)
            raise ConnectionAbortedError

    def _json(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Silent."""


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A refused key ends the request."""


@pytest.fixture
def service() -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), _Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def ask(open_: Any, service: str, member: str | None, key: str = KEY, **options: Any) -> ToolResult:
    runtime = open_(SearchSettings.model_validate({"base_url": service, **options}))
    context = CallContext(request_id="test", provider_data=Secrets({member: key} if member else {}))
    result = runtime.invoke(context, TOOL, GROUP, {"query": "1 + 1"}, ())
    assert isinstance(result, ToolResult)
    return result


@pytest.mark.parametrize(
    ("open_", "member"), [(brave_search, "brave_search_api_key"), (tavily_search, "tavily_search_api_key")]
)
def test_results_are_titles_links_and_short_texts(service: str, open_: Any, member: str) -> None:
    answer = json.loads(str(ask(open_, service, member).content))
    assert len(answer["results"]) == 5
    assert answer["results"][0]["url"] == "https://t.example"
    assert len(answer["results"][0]["content"]) <= 2000


def test_wolfram_answers_with_what_it_can_say_in_text(service: str) -> None:
    answer = json.loads(str(ask(wolfram_alpha, service, "wolfram_alpha_api_key").content))
    assert answer["pods"] == [{"title": "Result", "text": "2"}]


def test_the_callers_key_goes_before_the_operators(service: str) -> None:
    assert ask(brave_search, service, None, api_key=KEY).error_message is None
    assert ask(brave_search, service, "brave_search_api_key", api_key="wrong").error_message is None


def test_without_a_key_or_with_a_wrong_one_the_answer_says_so_and_no_key(service: str) -> None:
    missing = ask(brave_search, service, None)
    assert "X-LlamaStack-Provider-Data" in str(missing.error_message)
    wrong = ask(brave_search, service, "brave_search_api_key", key="other-canary")
    assert "status 401" in str(wrong.error_message)
    assert "other-canary" not in str(wrong)


def test_a_service_that_is_away_is_a_result_that_a_model_can_read() -> None:
    away = ask(tavily_search, "http://127.0.0.1:1", "tavily_search_api_key")
    assert away.error_code == 1


PARAMETERS = [
    {"name": "n", "parameter_type": "integer", "required": True},
    {"name": "flag", "parameter_type": "boolean", "required": False, "default": True},
    {"name": "any", "parameter_type": "any", "required": False},
]


def test_arguments_are_filled_and_numbers_in_texts_are_taken() -> None:
    taken = checked({"n": "3"}, PARAMETERS, below={"any": [1]}, tool="t", where="/kwargs")
    assert taken == {"n": 3, "flag": True, "any": [1]}
    assert checked({"n": 3.0, "flag": "false"}, PARAMETERS, below={}, tool="t", where="/kwargs") == {
        "n": 3,
        "flag": False,
    }
    assert checked({"x": 1}, [], below={}, tool="t", where="/kwargs") == {"x": 1}


@pytest.mark.parametrize(
    ("arguments", "where"),
    [({}, "/kwargs/n"), ({"n": "three"}, "/kwargs/n"), ({"n": True}, "/kwargs/n"), ({"n": 1, "m": 2}, "/kwargs/m")],
)
def test_arguments_that_do_not_fit_are_refused_by_name(arguments: dict[str, Any], where: str) -> None:
    with pytest.raises(BadRequest) as refused:
        checked(arguments, PARAMETERS, below={}, tool="t", where="/kwargs")
    assert refused.value.where == where
