"""Plain streaming clients: one for this API, one for llama.cpp's. The same few lines of work on both sides."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from benchmarks.loads import Answer, Ask

JsonObject = dict[str, Any]


def _stream(base_url: str, path: str, body: JsonObject, text_of: Callable[[JsonObject], str]) -> Answer:
    """POST and read server-sent events; `text_of` takes the new text out of one event."""
    url = urlsplit(base_url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port or 80, timeout=600)
    payload = json.dumps(body)
    started = time.perf_counter()
    connection.request("POST", path, payload, {"content-type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{path} answered {response.status}: {response.read()[:300]!r}")
    texts: list[str] = []
    first_s = 0.0
    for line in response:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        text = text_of(json.loads(line[6:]))
        if text:
            first_s = first_s or time.perf_counter() - started
            texts.append(text)
    total_s = time.perf_counter() - started
    connection.close()
    return Answer("".join(texts), first_s or total_s, total_s)


def stack_client(base_url: str, model: str) -> Ask:
    """Chat over this API, greedy, without a repetition penalty."""

    def ask(prompt: str, max_tokens: int) -> Answer:
        body = {
            "model_id": model,
            "messages": [{"role": "user", "content": prompt}],
            "sampling_params": {
                "strategy": {"type": "greedy"},
                "max_tokens": max_tokens,
                "repetition_penalty": 1.0,
            },
            "stream": True,
        }
        return _stream(base_url, "/v1/inference/chat-completion", body, lambda e: str(e["event"]["delta"]["text"]))

    return ask


def llama_client(base_url: str) -> Ask:
    """Chat over llama.cpp's OpenAI form, greedy, with its prompt cache off."""

    def ask(prompt: str, max_tokens: int) -> Answer:
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
            "cache_prompt": False,
            "stream": True,
        }

        def text_of(event: JsonObject) -> str:
            choices = event.get("choices") or [{}]
            return str(choices[0].get("delta", {}).get("content") or "")

        return _stream(base_url, "/v1/chat/completions", body, text_of)

    return ask
