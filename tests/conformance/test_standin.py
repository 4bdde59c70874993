"""The stand-in answers as the contract says, and the official client gets along with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from llama_stack_client import AuthenticationError, BadRequestError, LlamaStackClient
from llama_stack_client.lib.agents.agent import Agent
from llama_stack_client.lib.agents.client_tool import ClientTool
from starlette.types import ASGIApp

from generated.operations import OPERATIONS
from tests.conformance.contract import validate
from tests.conformance.exchanges import AGENT, HELLO, Exchange, dialog_with
from tests.conformance.standin import ECHO_GROUP, LLM, SHIELD, serving, standin_app


def exchanges_with(app: ASGIApp) -> list[Exchange]:
    """What an application answers to the dialog, in this process."""
    return asyncio.run(dialog_with("http://standin", httpx.ASGITransport(app)))


@pytest.fixture(scope="module")
def exchanges() -> list[Exchange]:
    return exchanges_with(standin_app())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(standin_app()) as url:
        yield url


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_succeeds_with_what_the_contract_says(exchanges: list[Exchange], operation: str) -> None:
    good = [each for each in exchanges if each.operation == operation and each.status == 200]
    assert good
    for exchange in good:
        validate(exchange)


def test_what_is_wrong_is_refused_with_json_and_never_breaks_the_server(exchanges: list[Exchange]) -> None:
    refused = [each for each in exchanges if each.status != 200]
    assert {each.status for each in refused} == {400, 404, 405, 409, 415}
    for exchange in refused:
        assert exchange.media == "application/json" and json.loads(exchange.body)["detail"]
        assert ("allow" in exchange.headers) == (exchange.status == 405)


def test_the_same_dialog_gets_the_same_answers(exchanges: list[Exchange]) -> None:
    again = exchanges_with(standin_app())
    assert [each.comparable() for each in again] == [each.comparable() for each in exchanges]


def test_official_client_chats(url: str) -> None:
    messages: Any = [HELLO]
    with LlamaStackClient(base_url=url) as client:
        whole = client.inference.chat_completion(model_id=LLM, messages=messages, stream=False)
        events: Any = client.inference.chat_completion(model_id=LLM, messages=messages, stream=True)
        text = "".join(chunk.event.delta.text for chunk in events)
        assert text == whole.completion_message.content == HELLO["content"]
        assert next(model.identifier for model in client.models.list()) == LLM
        assert client.models.retrieve("org/never") is None
        with pytest.raises(BadRequestError):
            client.inference.chat_completion(model_id="org/never", messages=messages)


class GetWeather(ClientTool):
    """A tool that runs here."""

    def get_name(self) -> str:
        return "get_weather"

    def get_description(self) -> str:
        return "The weather of a city"

    def get_params_definition(self) -> dict[str, Any]:
        return {"city": {"name": "city", "parameter_type": "string", "description": "Which", "required": True}}

    def run(self, messages: Any) -> Any:
        call = messages[0].tool_calls[0]
        return [{"role": "tool", "call_id": call.call_id, "tool_name": call.tool_name, "content": "Sunny."}]


@pytest.mark.parametrize("client_tools", [(), (GetWeather(),)])
def test_official_client_runs_turns_with_tools_of_either_side(url: str, client_tools: Any) -> None:
    config: Any = {**AGENT, "input_shields": [SHIELD], "tool_choice": "required"}
    if client_tools:
        config["client_tools"] = [tool.get_tool_definition() for tool in client_tools]
    else:
        config["toolgroups"] = [ECHO_GROUP]
    messages: Any = [HELLO]
    with LlamaStackClient(base_url=url) as client:
        agent: Any = Agent(client, config, client_tools)
        session_id = agent.create_session("talk")
        *_, last = agent.create_turn(messages, session_id=session_id)
        turn = last.event.payload.turn
        assert turn.output_message.content == ("Sunny." if client_tools else HELLO["content"])
        session = client.agents.session.retrieve(session_id, agent_id=agent.agent_id)
        assert session.turns[-1] == turn and len(session.turns) == (2 if client_tools else 1)


def test_with_keys_every_path_needs_one() -> None:
    with serving(standin_app(keys=("secret",))) as url:
        assert httpx.get(f"{url}/v1/health").status_code == httpx.get(f"{url}/nowhere").status_code == 401
        with LlamaStackClient(base_url=url) as client, pytest.raises(AuthenticationError):
            client.models.list()
        with LlamaStackClient(base_url=url, default_headers={"Authorization": "Bearer secret"}) as client:
            assert client.models.list()
