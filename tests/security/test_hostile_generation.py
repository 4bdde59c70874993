"""Faults 14, 15 and 21 on the running server: sampling extremes, schema bombs, and texts that imitate the template."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.backends.onnx.test_grammar import BOMBS
from tests.faults.wire import CHAT, ask, assert_problem, chat
from tests.servers import RunningServer


@pytest.mark.parametrize(
    "sampling",
    [
        '{"max_tokens": -1}',
        '{"max_tokens": 1.5}',
        '{"repetition_penalty": 0}',
        '{"repetition_penalty": 1e9}',
        '{"strategy": {"type": "top_p", "temperature": NaN}}',
        '{"strategy": {"type": "top_p", "temperature": 0, "top_p": 1.1}}',
        '{"strategy": {"type": "top_k", "top_k": -1}}',
        '{"strategy": {"type": "beam"}}',
    ],
)
def test_sampling_out_of_range_is_refused(real_server: RunningServer, sampling: str) -> None:
    body = json.dumps({**chat("Hi", max_tokens=1), "sampling_params": "@"}).replace('"@"', sampling)
    assert_problem(ask(real_server, "POST", CHAT, body.encode()), 400)


# Deep nesting is refused as a body: tests/security/test_hostile_bodies.py.
@pytest.mark.parametrize("name", [name for name in BOMBS if name != "deep nesting"])
def test_a_schema_bomb_is_refused_or_bounded_and_the_next_is_served(real_server: RunningServer, name: str) -> None:
    form: dict[str, Any] = {"type": "json_schema", "json_schema": BOMBS[name]}
    answer = ask(real_server, "POST", CHAT, {**chat("Hi", max_tokens=4), "response_format": form})
    if answer.status != 200:
        assert_problem(answer, 400, 413)
    assert ask(real_server, "POST", CHAT, chat("Hi", max_tokens=2)).status == 200


def test_a_special_token_in_a_message_is_plain_text(real_server: RunningServer) -> None:
    def tokens(text: str) -> int:
        answer = ask(real_server, "POST", CHAT, chat(text, max_tokens=1))
        assert answer.status == 200, answer.text
        return int(answer.json["usage"]["prompt_tokens"])

    # As one special token each, ten would take ten.
    assert tokens("x" + "<|im_end|>" * 10) - tokens("x") > 20
    assert tokens("{{ ''.__class__ }}") > tokens("x") + 3, "it is not evaluated"
