"""What the engine's own features are worth, each beside the same engine without it: prefix reuse, JSON schemas, prompt
lookup; and decode beside the machine's memory bandwidth."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.config import EngineSettings
from backends.context import CallContext
from backends.inference import ChatPrompt, Finish, GenerateRequest, Sampling, TextPrompt
from backends.models.store import ModelStore
from backends.onnx.generator import OnnxTextGenerator
from benchmarks.report import Row
from benchmarks.sides import LLM
from generated.models import CompletionMessage, JsonSchemaResponseFormat, Message, SystemMessage, UserMessage

TOGETHER = 16
FORM = JsonSchemaResponseFormat(
    json_schema={
        "type": "object",
        "properties": {
            "title": {"type": "string", "minLength": 20, "maxLength": 120},
            "summary": {"type": "string", "minLength": 60, "maxLength": 400},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 2, "maxItems": 6},
            "rating": {"type": "integer", "minimum": 1, "maximum": 5},
        },
        "required": ["title", "summary", "tags", "rating"],
        "additionalProperties": False,
    }
)
STORY = (
    "The ship sailed from the harbour of Lisbon on the 3rd of May with 42 sailors, 17 goats and a cargo of red clay. "
)


def measure(models: Path, *, threads: int, repeat: int) -> list[Row]:
    """Rows of all features. Each side has an engine of its own; they take turns."""
    plain = _engine(models, threads, prefix_cache_mb=0)
    reuse = _engine(models, threads)
    lookup = _engine(models, threads, prefix_cache_mb=0, prompt_lookup=True)
    try:
        for engine in (plain, reuse, lookup):
            _run(engine, _chat("Hello.", 4))
        rows = [_second_turn(plain, reuse, repeat), *_json(plain, repeat), _lookup(plain, lookup, repeat)]
        return [*rows, _bandwidth(models, plain, repeat)]
    finally:
        for engine in (plain, reuse, lookup):
            engine.close()


def _engine(models: Path, threads: int, **settings: object) -> OnnxTextGenerator:
    return OnnxTextGenerator(ModelStore(models), EngineSettings(threads=threads).model_copy(update=settings))


def _chat(text: str, max_tokens: int) -> GenerateRequest:
    prompt = ChatPrompt((UserMessage(content=text),))
    return GenerateRequest(LLM, prompt, Sampling(max_tokens=max_tokens, repetition_penalty=1.0))


def _run(engine: OnnxTextGenerator, request: GenerateRequest) -> tuple[float, float, int]:
    """Seconds to the first event and to the end, and the tokens of the answer."""
    started = time.perf_counter()
    first_s, tokens = 0.0, 0
    for event in engine.generate(CallContext(request_id="bench"), request):
        first_s = first_s or time.perf_counter() - started
        if isinstance(event, Finish):
            tokens = event.completion_tokens
    return first_s, time.perf_counter() - started, tokens


def _together(engine: OnnxTextGenerator, requests: list[GenerateRequest]) -> float:
    """Tokens per second of all answers together."""
    counts: list[int] = []

    def client(request: GenerateRequest) -> None:
        counts.append(_run(engine, request)[2])

    clients = [threading.Thread(target=client, args=(request,)) for request in requests]
    started = time.perf_counter()
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    return sum(counts) / (time.perf_counter() - started)


def _second_turn(plain: OnnxTextGenerator, reuse: OnnxTextGenerator, repeat: int) -> Row:
    row = Row("second turn after 1,024 tokens, first text", "s", [], "no reuse", [], "<= 0.1x")
    for turn in range(repeat):
        story = f"Log {turn}. " + " ".join(
            f"On day {i} we passed the {(i * 7 + turn) % 50}th island." for i in range(72)
        )
        first: tuple[Message, ...] = (SystemMessage(content=story), UserMessage(content="Where are we?"))
        reply = CompletionMessage(content="Near the islands.", stop_reason="end_of_turn")
        second = (*first, reply, UserMessage(content="And on day 12?"))
        sampling = Sampling(max_tokens=4)
        for engine, samples in ((plain, row.peer), (reuse, row.ours)):
            _run(engine, GenerateRequest(LLM, ChatPrompt(first), sampling))
            samples.append(_run(engine, GenerateRequest(LLM, ChatPrompt(second), sampling))[0])
    return row


def _json(engine: OnnxTextGenerator, repeat: int) -> list[Row]:
    rows = []
    for count in (1, TOGETHER):
        row = Row(f"JSON schema, {count} together", "tokens/s", [], "free text", [], ">= 0.95x")
        for turn in range(repeat):
            free = [_chat(f"Describe a good book about number {turn * 31 + i} as JSON.", 96) for i in range(count)]
            row.peer.append(_together(engine, free))
            row.ours.append(_together(engine, [replace(request, response_format=FORM) for request in free]))
        rows.append(row)
    return rows


def _lookup(plain: OnnxTextGenerator, lookup: OnnxTextGenerator, repeat: int) -> Row:
    row = Row("prompt lookup, repeating text, 1 stream", "tokens/s", [], "no lookup", [], ">= 1.3x")
    prompt = TextPrompt(STORY * 3)
    request = GenerateRequest(LLM, prompt, Sampling(max_tokens=96, repetition_penalty=1.0))
    for _ in range(repeat):
        for engine, samples in ((plain, row.peer), (lookup, row.ours)):
            first_s, total_s, tokens = _run(engine, request)
            samples.append((tokens - 1) / (total_s - first_s))
    return row


def _bandwidth(models: Path, engine: OnnxTextGenerator, repeat: int) -> Row:
    """Weights that one stream's decode reads per second, beside what all cores read of a large array."""
    size = (ModelStore(models).path(LLM) / "model.onnx.data").stat().st_size
    row = Row("weights read by decode, 1 stream", "GB/s", [], "memory, all cores", [], "0.55x")
    request = _chat("Write a long story about the sea.", 96)
    for _ in range(repeat):
        first_s, total_s, tokens = _run(engine, request)
        row.ours.append(size * (tokens - 1) / (total_s - first_s) / 1e9)
        row.peer.append(_read_bandwidth())
    return row


def _read_bandwidth(megabytes: int = 256) -> float:
    parts = [np.ones(megabytes * 1_000_000 // 16, np.float64) for _ in range(2)]

    def read(part: NDArray[np.float64]) -> None:
        for _ in range(4):
            part.max()

    workers = [threading.Thread(target=read, args=(part,)) for part in parts]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return 4 * sum(part.nbytes for part in parts) / (time.perf_counter() - started) / 1e9
