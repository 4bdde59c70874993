"""Two thousand requests of all kinds on the real model: nothing leaks."""

from __future__ import annotations

import random
import threading
import time

import pytest

from backends.config import EngineSettings
from backends.context import CallContext
from backends.errors import Cancelled
from backends.generation import collect
from backends.inference import GenerateRequest, Sampling, TextPrompt
from backends.models.catalog import DEFAULT_LLM
from backends.models.store import ModelStore
from backends.onnx.generator import OnnxTextGenerator
from generated.models import JsonSchemaResponseFormat
from tests.measures import held_by, joined

REQUESTS, CLIENTS = 2000, 20
FORM = JsonSchemaResponseFormat(
    json_schema={"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}}}
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_descriptors_and_threads_stay_what_they_are(model_store: ModelStore) -> None:
    settings = EngineSettings(device="cpu", slots=8, max_context=1024, queue=64, prefix_cache_mb=64)
    generator = OnnxTextGenerator(model_store, settings)
    failures: list[object] = []

    def client(seed: int, requests: int) -> None:
        chance = random.Random(seed)
        for number in range(requests):
            words = " ".join(chance.choice(("sea", "ship", "island", "of", "the", "in")) for _ in range(40))
            request = GenerateRequest(
                DEFAULT_LLM,
                TextPrompt("Once upon a time there was " * chance.randrange(12) + words),
                Sampling(max_tokens=chance.randrange(1, 12), temperature=chance.choice((0.0, 0.9)), seed=number),
                logprobs=chance.choice((0, 0, 3)),
                response_format=FORM if chance.random() < 0.2 else None,
                priority=chance.choice(("interactive", "batch")),
            )
            context = CallContext(request_id=f"{seed}.{number}")
            try:
                events = generator.generate(context, request)
                if chance.random() < 0.1:
                    context.cancellation.cancel()
                collect(events)
            except Cancelled:
                continue
            except Exception as error:
                failures.append(error)

    def load(requests: int) -> None:
        clients = [threading.Thread(target=client, args=(seed, requests // CLIENTS)) for seed in range(CLIENTS)]
        for each in clients:
            each.start()
        joined(clients)

    load(REQUESTS // 4)  # caches fill
    before, started = held_by(), time.perf_counter()
    load(REQUESTS * 3 // 4)
    after, stats = held_by(), generator.stats()[DEFAULT_LLM]
    print(f"{REQUESTS * 3 // 4} requests in {time.perf_counter() - started:.0f} s; before: {before}; after: {after}")
    assert not failures
    assert (after.descriptors, after.threads) == (before.descriptors, before.threads)
    assert after.resident_mb < before.resident_mb + 60
    assert (stats.running, stats.waiting, stats.failed) == (0, 0, 0)
    assert (
        stats.finished + stats.cancelled == REQUESTS // 4 // CLIENTS * CLIENTS + REQUESTS * 3 // 4 // CLIENTS * CLIENTS
    )
    generator.close()
