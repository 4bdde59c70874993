"""`onnxstack engine`, and servers that attach to one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.models.store import ModelStore
from tests.backends.engine.running import engine_process
from tests.faults.conftest import real_models
from tests.faults.wire import CHAT, ask, chat, children, command_of, engine_of, master_of
from tests.server.processes import lines_of, until
from tests.servers import ROOT, free_port, launch, running

__all__ = ["real_models"]

SECRET = "a secret of sixteen"


def engine(directory: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The verb, where it refuses."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ONNXSTACK_")}
    return subprocess.run(
        [sys.executable, "-m", "server.cli", "engine", *options],
        cwd=ROOT,
        env={**inherited, "ONNXSTACK_DATA_DIR": str(directory), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "give an address that servers can reach"),
        (("--address", "inproc"), "give an address that servers can reach"),
        (("--address", "udp://x:1"), "--address is ipc:///absolute/path, tcp://host:port"),
        (("--address", "tcp://127.0.0.1:9"), "give engine.secret, the same at both ends"),
        (("--address", "ipc:///tmp/x", "--provider", "y"), "the settings have `onnx`"),
        (("--address", f"ipc:///{'x' * 120}"), "at most 107 bytes"),
    ],
)
def test_what_cannot_be_an_engine_is_refused_in_one_line(tmp_path: Path, options: tuple[str, ...], reason: str) -> None:
    refused = engine(tmp_path, *options)
    assert refused.returncode == 2, refused.stderr
    assert reason in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_server_attaches_to_an_engine_over_tcp_and_starts_none(tmp_path: Path, model_store: ModelStore) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    secret = {"ONNXSTACK_ENGINE__SECRET": SECRET, "ONNXSTACK_LOG__FORMAT": "json"}
    with engine_process(tmp_path, model_store.root, address=address, **secret) as other:
        # Without models of its own: all that it knows of them comes from the engine.
        with running(tmp_path / "server", environment={**secret, "ONNXSTACK_ENGINE__ADDRESS": address}) as server:
            assert not [child for child in children(master_of(server)) if "server.engine" in command_of(child)]
            answer = ask(server, "POST", CHAT, chat("Hello", max_tokens=4))
            assert answer.status == 200, answer.text
            unknown = ask(server, "POST", "/v1/models", {"model_id": "x", "model_type": "llm"})
            assert unknown.status == 400
            assert "available: HuggingFaceTB/SmolLM2-135M-Instruct" in unknown.text
            devices = [entry.get("device") for entry in ask(server, "GET", "/v1/inspect/providers").json["data"]]
            assert "cpu: onnxruntime-gpu is not installed" in devices
            assert server.stop() == 0
        assert other.process.poll() is None, "an engine that somebody else runs goes on"
        assert SECRET not in other.log.read_text() + server.log.read_text()


def test_each_provider_has_an_engine_with_settings_of_its_own(tmp_path: Path, real_models: dict[str, str]) -> None:
    providers: list[dict[str, Any]] = [
        {"api": "inference", "provider_id": "a", "provider_type": "inline::onnx", "config": {"slots": 1}},
        {"api": "inference", "provider_id": "b", "provider_type": "inline::onnx", "config": {"max_context": 64}},
    ]
    settings = {
        **real_models,
        "ONNXSTACK_PROVIDERS": json.dumps(providers),
        "ONNXSTACK_DEFAULT_PROVIDERS": '{"inference": "a"}',
        "ONNXSTACK_LOG__FORMAT": "json",
    }
    with running(tmp_path, environment=settings) as server:
        keepers = [child for child in children(master_of(server)) if "server.engine" in command_of(child)]
        assert len(keepers) == 2
        for name in ("a", "b"):
            body = {"model_id": name, "provider_id": name, "provider_model_id": chat("", max_tokens=1)["model_id"]}
            assert ask(server, "POST", "/v1/models", body).status == 200
        question = chat("word " * 80, max_tokens=1)
        assert ask(server, "POST", CHAT, {**question, "model_id": "a"}).status == 200
        refused = ask(server, "POST", CHAT, {**question, "model_id": "b"})
        assert refused.status == 400
        assert "the model takes 64" in refused.text
        assert server.stop() == 0


def test_two_servers_run_side_by_side_with_an_engine_each(tmp_path: Path, real_models: dict[str, str]) -> None:
    deep = tmp_path / ("deep" * 25)  # too long for a socket's path
    with running(tmp_path, environment=real_models) as first, running(deep, environment=real_models) as second:
        engines = [until(lambda server=server: engine_of(server), "engine") for server in (first, second)]  # type: ignore[misc]
        assert engines[0] != engines[1]
        for server in (first, second):
            assert ask(server, "POST", CHAT, chat("Hello", max_tokens=2)).status == 200


def test_inproc_starts_no_engine(tmp_path: Path, real_models: dict[str, str]) -> None:
    with running(tmp_path, environment={**real_models, "ONNXSTACK_ENGINE__ADDRESS": "inproc"}) as server:
        assert not [child for child in children(master_of(server)) if "server.engine" in command_of(child)]
        assert ask(server, "POST", CHAT, chat("Hello", max_tokens=2)).status == 200


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"ONNXSTACK_ENGINE__DEVICE": "cuda"}, "engine.device: device cuda is not available"),
        (
            {"ONNXSTACK_PROVIDERS": '[{"api":"inference","provider_id":"o","provider_type":"inline::onnx",'
             '"config":{"slot":1}}]'},
            "unknown option; did you mean slots?",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_stop_the_start_with_one_line(
    tmp_path: Path, settings: dict[str, str], reason: str
) -> None:
    with pytest.raises(pytest.fail.Exception, match="the server did not start"):
        launch(tmp_path, **settings, ONNXSTACK_LOG__FORMAT="json")
    (line,) = [line for line in lines_of(tmp_path / "server.log") if line["event"] == "cannot start"]
    assert reason in line["reason"]
