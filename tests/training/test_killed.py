"""Fault 27: the process of a training job is killed at each stage; the server, which has the job's state, stays up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from llama_stack_client import LlamaStackClient

from backends.models.store import ModelStore
from tests.backends.onnx.convert import architectures
from tests.server.processes import until
from tests.servers import ROOT, RunningServer, running
from tests.training.facts import rows
from tests.training.requests import COLUMNS, training_config

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
# Named here too: the places are in a module that needs torch.
PLACES = (
    "while data is read",
    "in a step of the second epoch",
    "while the model is converted",
    "while a checkpoint is written",
    "while its state is written",
    "before a model is registered",
    "before an epoch is written down",
    "before the last registration",
)
RUNNER = "import sys; from server import job_runner; job_runner.COMMAND = tuple(sys.argv[1:]); job_runner.main()"


@pytest.fixture(scope="module")
def tiny_models(own_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store with a random model in it that trains in a moment."""
    config = {**architectures.CONFIGS["llama"], "max_position_embeddings": 512}
    folder = architectures.write_folder(tmp_path_factory.mktemp("tiny") / "source", config)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    ModelStore(own_models).pull(str(folder), name="tiny")
    return own_models


@pytest.fixture(scope="module")
def server(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that leaves its jobs to others."""
    settings = {"ONNXSTACK_MODELS_DIR": str(tiny_models), "ONNXSTACK_JOBS__RUNNER": "none"}
    with running(tmp_path_factory.mktemp("killed"), environment=settings) as server:
        client = LlamaStackClient(base_url=server.url)
        client.models.register(model_id="tiny", provider_id="onnx", provider_model_id="tiny", model_type="llm")
        client.datasets.register(dataset_id="few", dataset_schema=COLUMNS, url={"uri": "data:application/jsonl,"})
        client.datasetio.append_rows(dataset_id="few", rows=rows(["a?", "b?", "c?", "d?"], "yes"))
        yield server
        assert server.stop() == 0


@contextmanager
def runner(server: RunningServer, models: Path, **environment: str) -> Iterator[None]:
    """The runner of jobs as it ships, whose attempts die where the environment says."""
    command = [sys.executable, "-c", RUNNER, sys.executable, "-m", "tests.training.killed_at"]
    settings = {"ONNXSTACK_DATA_DIR": str(server.data), "ONNXSTACK_MODELS_DIR": str(models), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings, **environment})
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_job_goes_on_and_nothing_is_listed_by_half(
    place: str, server: RunningServer, tiny_models: Path, tmp_path: Path
) -> None:
    client = LlamaStackClient(base_url=server.url)
    name = place.replace(" ", "-")
    client.post_training.supervised_fine_tune(
        **training_config(name, "tiny", "few", validation="few", batch_size=2, n_epochs=2)
    )
    mark = tmp_path / "mark"
    seen: list[str] = []

    def looked() -> bool:
        status: Any = client.post_training.job.status(job_uuid=name)
        if not seen or seen[-1] != status.status:
            seen.append(status.status)
        checkpoints = client.post_training.job.artifacts(job_uuid=name).checkpoints
        served = {model.identifier for model in client.models.list()}
        for checkpoint in checkpoints:
            entry: Any = dict(checkpoint)
            assert entry["identifier"] in served
            assert_whole(Path(entry["path"]) / "adapter_model.safetensors")
        for model in ModelStore(tiny_models).list():
            if model.name.startswith("training-"):
                ModelStore(tiny_models).verify(model.name)
        return status.status in ("completed", "failed")

    with runner(server, tiny_models, KILL_PLACE=place, KILL_MARK=str(mark)):
        until(looked, "end of the job", 300)
    assert mark.exists(), "the job never came to the place"
    assert seen[-1] == "completed"
    assert seen == [state for state in ("scheduled", "in_progress", "completed") if state in seen], "it went back"
    done: Any = client.post_training.job.artifacts(job_uuid=name).checkpoints
    assert [dict(checkpoint)["identifier"] for checkpoint in done] == [f"{name}-0", f"{name}-1"]
    answer = client.inference.chat_completion(
        model_id=name, messages=[{"role": "user", "content": "a?"}], sampling_params={"max_tokens": 2}
    )
    assert answer.completion_message.content is not None
    left = [path.name for path in (server.data / "training").rglob("*") if "state-" in path.name]
    assert left == [], "states of a job that has ended"
    assert [path for path in (server.data / "training").rglob("*.partial") if path.is_dir()] == []


def assert_whole(file: Path) -> None:
    """A safetensors file is as long as its header says."""
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    assert len(content) == 8 + size + max(ends)
