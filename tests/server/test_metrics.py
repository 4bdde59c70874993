"""What engines count, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from backends.errors import Unavailable
from backends.onnx.scheduler import SchedulerStats
from server.metrics import EngineCollector
from tests.faults.wire import CHAT, LLM, ask, chat, metric
from tests.servers import RunningServer

STATS = SchedulerStats(
    running=2, waiting=3, steps=40, prompt_tokens=50, reused_tokens=64, generated_tokens=70, finished=8, cancelled=9,
    failed=1, prefix_hits=4, decode_runs=30, decoded=60, kv_bytes=1000, kv_limit_bytes=2000,
)  # fmt: skip


def away() -> dict[str, SchedulerStats]:
    raise Unavailable("there is no engine")


def test_every_counter_of_every_model_is_told_and_an_engine_that_is_away_is_not_up() -> None:
    registry = CollectorRegistry()
    registry.register(EngineCollector({"here": lambda: {"a/b": STATS}, "gone": away}))
    lines = generate_latest(registry).decode().splitlines()
    assert [line for line in lines if line.startswith("onnxstack_engine_up{")] == [
        'onnxstack_engine_up{engine="here"} 1.0',
        'onnxstack_engine_up{engine="gone"} 0.0',
    ]
    values = {
        line.partition("{")[0].removeprefix("onnxstack_engine_"): float(line.split()[-1])
        for line in lines
        if line[0] != "#"
    }
    labels = '{engine="here",model="a/b"}'
    assert f"onnxstack_engine_kv_bytes{labels} 1000.0" in lines
    assert {name: values[name] for name in values if name not in ("up", "sequences_total")} == {
        "sequences_running": 2, "sequences_waiting": 3, "kv_bytes": 1000, "kv_limit_bytes": 2000, "steps_total": 40,
        "decode_runs_total": 30, "decoded_sequences_total": 60, "prompt_tokens_total": 50,
        "reused_prompt_tokens_total": 64, "prefix_hits_total": 4, "generated_tokens_total": 70,
    }  # fmt: skip
    assert 'onnxstack_engine_sequences_total{end="cancelled",engine="here",model="a/b"} 9.0' in [
        line.replace('engine="here",model="a/b",end="cancelled"', 'end="cancelled",engine="here",model="a/b"')
        for line in lines
    ]


def test_the_engine_of_a_running_server_is_counted(real_server: RunningServer) -> None:
    name, labels = "onnxstack_engine_generated_tokens_total", {"engine": "onnx", "model": LLM}
    assert metric(real_server, "onnxstack_engine_up", engine="onnx") == 1
    text = "Tell me of the sea and of all the ships that sail on it. " * 12
    assert ask(real_server, "POST", CHAT, chat(text, max_tokens=4)).status == 200
    before, hits = metric(real_server, name, **labels), metric(real_server, "onnxstack_engine_prefix_hits_total")
    assert ask(real_server, "POST", CHAT, chat(text, max_tokens=4)).status == 200
    assert metric(real_server, name, **labels) == before + 4
    assert metric(real_server, "onnxstack_engine_prefix_hits_total") == hits + 1
    assert 0 < metric(real_server, "onnxstack_engine_kv_bytes") < metric(real_server, "onnxstack_engine_kv_limit_bytes")
    assert metric(real_server, "onnxstack_engine_decode_runs_total") > 0
