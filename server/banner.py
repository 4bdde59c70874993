"""What `onnxstack serve` prints when it is ready: where, what, and lines to paste."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from server.settings import Settings

_QUESTION = "Give me three tips for staying healthy."
_CLIENT = "llama-stack-client==0.1.1"
_MODELS_SHOWN = 12


def banner(settings: Settings, models: Sequence[tuple[str, str]]) -> str:
    """models: `(identifier, model_type)` of what is registered."""
    url = settings.server.url
    shown = [f"  {name}  ({kind})" for name, kind in models[:_MODELS_SHOWN]]
    if len(models) > _MODELS_SHOWN:
        shown.append(f"  and {len(models) - _MODELS_SHOWN} more: GET /v1/models")
    lines = [
        "",
        f"onnxstack is ready: {url}   API reference: {url}/docs",
        f"data: {settings.home}" + ("" if settings.auth.keys else "   no API key is set: whoever can connect may call"),
        "models:",
        *(shown or ["  none registered"]),
    ]
    chat = next((name for name, kind in models if kind == "llm"), None)
    if chat is not None:
        lines += [
            "",
            "Ask it from a shell:",
            "",
            *curl(settings, chat),
            "",
            "or from Python:",
            "",
            *python(settings, chat),
        ]
    return "\n".join([*lines, ""])


def _body(model: str) -> dict[str, object]:
    # A bound, because a small model may not come to an end by itself.
    return {
        "model_id": model,
        "messages": [{"role": "user", "content": _QUESTION}],
        "sampling_params": {"max_tokens": 100},
    }


def curl(settings: Settings, model: str) -> list[str]:
    """Three lines for a shell; with keys they take one from the variable API_KEY."""
    key = ' -H "Authorization: Bearer $API_KEY"' if settings.auth.keys else ""
    return [
        f"curl -s {settings.server.url}/v1/inference/chat-completion \\",
        f"  -H 'Content-Type: application/json'{key} \\",
        f"  -d {shlex.quote(json.dumps(_body(model), ensure_ascii=False))}",
    ]


def python(settings: Settings, model: str) -> list[str]:
    """Three lines for the official client; with keys one more, which takes the key from the variable API_KEY."""
    url, body = settings.server.url, _body(model)
    headers = ', default_headers={"Authorization": "Bearer " + os.environ["API_KEY"]}' if settings.auth.keys else ""
    arguments = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in body.items())
    return [
        *(["import os"] if settings.auth.keys else []),
        f"from llama_stack_client import LlamaStackClient  # pip install {_CLIENT}",
        f'client = LlamaStackClient(base_url="{url}"{headers})',
        f"print(client.inference.chat_completion({arguments}).completion_message.content)",
    ]
