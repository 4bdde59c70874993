"""Two thousand requests of all kinds on the real model, and fifty loads of it: nothing leaks."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from backends.config import EngineSettings
from backends.context import CallContext
from backends.errors import Cancelled
from backends.generation import collect
from backends.inference import GenerateRequest, Sampling, TextPrompt
from backends.models.catalog import DEFAULT_LLM
from backends.models.store import ModelStore
from backends.onnx.generator import OnnxTextGenerator
from backends.onnx.residency import Residency
from generated.models import JsonSchemaResponseFormat
from tests.backends.onnx.convert import tiny
from tests.backends.onnx.convert.adapters import peft_config
from tests.measures import held_by, joined
from tests.server.processes import until

REQUESTS, CLIENTS = 2000, 20
CYCLES = 50
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


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_model_and_its_adapter_that_are_loaded_and_given_up_leave_nothing_behind(
    model_store: ModelStore, tmp_path: Path
) -> None:
    store = store_with_adapter(model_store, tmp_path)
    settings = EngineSettings(device="cpu", slots=4, max_context=1024, prefix_cache_mb=64)
    residency = Residency()
    generator = OnnxTextGenerator(store, settings, residency=residency)
    held = []
    for cycle in range(CYCLES):
        context = CallContext(request_id=str(cycle))
        for model in ("adapter", DEFAULT_LLM):
            assert collect(generator.generate(context, GenerateRequest(model, TextPrompt("A"), Sampling(max_tokens=3))))
        until(lambda: not any(model.busy for model in residency.loaded().values()), "end of the answers")
        assert residency.unload(DEFAULT_LLM)
        held.append(held_by())
    before, after = held[4], held[-1]
    print(f"{CYCLES} cycles; after the fifth: {before}; after the last: {after}")
    assert after.descriptors <= before.descriptors + 2
    assert after.threads <= before.threads + 2
    assert after.resident_mb <= before.resident_mb + 60
    generator.close()


def store_with_adapter(model_store: ModelStore, directory: Path) -> ModelStore:
    """A store with the default model, and `adapter`, of which the factors are random."""
    store = ModelStore(directory / "models", catalog={})
    shutil.copytree(model_store.path(DEFAULT_LLM), store.root / model_store.path(DEFAULT_LLM).name)
    random_factors = np.random.default_rng(0)
    tensors = {
        f"base_model.model.model.layers.{layer}.self_attn.{name}_proj.lora_{part}.weight": (
            random_factors.normal(size=shape).astype(np.float32) / 50
        )
        for layer in range(30)
        for name, outputs in (("q", 576), ("v", 192))
        for part, shape in (("A", (8, 576)), ("B", (outputs, 8)))
    }
    (directory / "adapter").mkdir()
    (directory / "adapter" / "adapter_config.json").write_text(json.dumps(peft_config(8)))
    tiny.write_safetensors(directory / "adapter" / "adapter_model.safetensors", tensors)
    store.pull(str(directory / "adapter"), base=DEFAULT_LLM)
    return store
