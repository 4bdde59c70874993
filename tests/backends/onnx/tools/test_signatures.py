"""The tools of a request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.errors import BadRequest
from backends.onnx.tools.signatures import read_signatures
from generated.models import ToolDefinition
from tests.backends.onnx.tools.reading import CODE, NOW, SEARCH, TOOLS, WEATHER, parameter


def test_a_tool_becomes_a_json_schema_in_the_given_order() -> None:
    (weather,) = read_signatures([WEATHER])
    assert weather.function_json() == (
        '{"name": "get_weather", "description": "Weather of a city", "parameters": {"type": "object", "properties": '
        '{"city": {"type": "string", "description": "Its name"}, "days": {"type": "integer", "default": 1}, '
        '"exact": {"type": "boolean"}}, "required": ["city"]}}'
    )
    assert json.loads(weather.function_json()) == weather.function()


def test_a_short_line_tells_names_and_types() -> None:
    weather, now, plot = (signature.line() for signature in read_signatures(TOOLS))
    assert weather == "get_weather(city: string, days: integer = 1, exact?: boolean): Weather of a city"
    assert now == "now(): The time"
    assert plot == "plot(points: array[number], style?: object[string], title?: string | null, extra?: any)"


def test_builtin_tools_come_with_their_parameters() -> None:
    search, code = read_signatures([SEARCH, CODE])
    assert search.json_schema()["required"] == ["query"]
    assert code.json_schema()["required"] == ["code"]
    assert search.builtin and code.builtin and search.description
    own = ToolDefinition(tool_name="brave_search", description="Mine", parameters={"q": parameter("str")})
    (mine,) = read_signatures([own])
    assert not mine.builtin
    assert (mine.description, mine.json_schema()["required"]) == ("Mine", ["q"])


@pytest.mark.parametrize(
    ("tools", "where", "reason"),
    [
        ([NOW, WEATHER, NOW], "/tools/2/tool_name", "two tools are named `now`"),
        ([ToolDefinition(tool_name=" ")], "/tools/0/tool_name", "empty"),
        ([NOW, ToolDefinition(tool_name="a\nb")], "/tools/1/tool_name", "cannot be printed: 'a\\\\nb'"),
        ([ToolDefinition(tool_name="\ud800")], "/tools/0/tool_name", "cannot be printed"),
        ([ToolDefinition(tool_name="photogen")], "/tools/0/tool_name", "photogen is not supported"),
        ([ToolDefinition(tool_name="f", parameters={"": parameter("int")})], "/tools/0/parameters/", "empty"),
        (
            [ToolDefinition(tool_name="f", parameters={"a/b~c": parameter("int[][][][][]")})],
            "/tools/0/parameters/a~1b~0c",
            "nested",
        ),
    ],
)
def test_what_cannot_be_called_is_refused_with_its_place(tools: Any, where: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as refusal:
        read_signatures(tools)
    assert refusal.value.where == where
