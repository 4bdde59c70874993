"""`onnxstack models ps`, `load` and `unload` against engines in processes of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.models.store import ModelStore
from tests.backends.engine.running import EngineProcess, engine_process
from tests.backends.models.conftest import write_tiny_bert
from tests.backends.onnx.convert import architectures, tiny
from tests.backends.onnx.convert.adapters import factors, peft_config, write_peft
from tests.faults.conftest import real_models
from tests.faults.wire import CHAT, COMPLETION, LLM, EventStream, ask, chat, endless
from tests.server.processes import until
from tests.server.test_cli import onnxstack
from tests.servers import running

__all__ = ["real_models"]


@pytest.fixture(scope="module")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """A generator, an encoder, and a generator with half a graph."""
    root = tmp_path_factory.mktemp("models")
    store = ModelStore(root / "store", catalog={})
    folder = tiny.write_folder(root / "llama", tiny.CONFIG, tiny.weights(tiny.CONFIG, tiny.HUGGING_FACE_NAMES))
    for name in ("llama", "broken"):
        store.pull(str(folder), name=name)
    store.pull(str(write_tiny_bert(root / "bert")), name="words")
    graph = store.path("broken") / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:1000].ljust(graph.stat().st_size, b"\0"))
    return store


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, tiny_store: ModelStore) -> Iterator[EngineProcess]:
    with engine_process(tmp_path_factory.mktemp("e"), tiny_store.root) as engine:
        yield engine


def models(engine: EngineProcess, verb: str, *names: str) -> subprocess.CompletedProcess[str]:
    return onnxstack("models", verb, *names, "--address", engine.address, directory=engine.log.parent)


def loaded(engine: EngineProcess) -> dict[str, list[str]]:
    """The columns of `ps` by model."""
    listed = models(engine, "ps")
    assert listed.returncode == 0, listed.stderr
    rows = [line.split("\t") for line in listed.stdout.splitlines()]
    assert all(row[0] == engine.address for row in rows)
    return {row[1]: row[2:] for row in rows}


def test_models_are_loaded_listed_and_unloaded(engine: EngineProcess, tiny_store: ModelStore) -> None:
    assert loaded(engine) == {}
    for name in ("llama", "words"):
        done = models(engine, "load", name)
        assert (done.returncode, done.stdout) == (0, f"{name}: loaded in engine `{engine.address}`\n"), done.stderr
    rows = loaded(engine)
    assert list(rows) == ["llama", "words"]
    for name, (size, count, waiting, prefixes, idle) in rows.items():
        assert size == f"{tiny_store.size(name) / 1e3:.0f} kB"
        assert (count, waiting, prefixes) == ("0", "0", "0 kB")
        assert idle.endswith(" s")
    assert models(engine, "load", "llama").returncode == 0, "again changes nothing"
    for name in ("llama", "words"):
        done = models(engine, "unload", name)
        assert (done.returncode, done.stdout) == (0, f"{name}: unloaded in engine `{engine.address}`\n"), done.stderr
    assert loaded(engine) == {}


@pytest.mark.parametrize(
    ("verb", "name", "code", "reason"),
    [
        ("load", "nobody", 2, "model 'nobody' is not in the model store"),
        ("load", "broken", 1, "model.onnx"),
        ("unload", "llama", 2, "model 'llama' is not loaded; loaded: none"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    engine: EngineProcess, verb: str, name: str, code: int, reason: str
) -> None:
    refused = models(engine, verb, name)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1
    assert reason in refused.stderr
    assert engine.process.poll() is None


def test_where_no_engine_runs_all_three_say_so(tmp_path: Path) -> None:
    for arguments in (("ps",), ("load", "llama"), ("unload", "llama")):
        refused = onnxstack("models", *arguments, directory=tmp_path)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"error: no engine runs for {tmp_path}: start `onnxstack serve`, or name")
    address = f"ipc://{tmp_path / 'e'}"
    refused = onnxstack("models", "ps", directory=tmp_path, ONNXSTACK_ENGINE__ADDRESS=address)
    assert refused.returncode == 1
    assert refused.stderr == f"error: engine `onnx` at {address} does not answer: the engine is starting\n"
    refused = onnxstack("models", "ps", "--provider", "x", directory=tmp_path, ONNXSTACK_ENGINE__ADDRESS=address)
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: no engine of provider `x`; there are those of `onnx`\n",
    )


def test_the_engine_of_a_running_server_is_found_by_its_data_directory(
    tmp_path: Path, real_models: dict[str, str]
) -> None:
    deep = tmp_path / ("deep" * 25)  # so that the sockets of both lie in the one short directory
    deeper = tmp_path / ("more" * 25)
    with running(deep, environment=real_models) as server, running(deeper, environment=real_models):
        assert ask(server, "POST", CHAT, chat("word " * 100, max_tokens=2)).status == 200
        with EventStream(server, COMPLETION, endless(4000)) as stream:
            stream.first_event()
            name, _, count, waiting, prefixes, idle = _row(deep)
            assert (name, count, waiting, idle) == (LLM, "1", "0", "")
            assert prefixes.endswith(" MB")
            refused = onnxstack("models", "unload", LLM, directory=deep)
            assert (refused.returncode, refused.stderr) == (
                1,
                f"error: model {LLM} is in use; try again when it is idle\n",
            )
        until(lambda: _row(deep)[2] == "0", "end of the generation")
        assert onnxstack("models", "ps", directory=deeper).stdout == "", "the other's models are the other's"
        done = onnxstack("models", "unload", LLM, directory=deep)
        assert (done.returncode, done.stdout) == (0, f"{LLM}: unloaded in engine `onnx`\n")
        answer = ask(server, "POST", CHAT, chat("Hello", max_tokens=2))
        assert answer.status == 200, "the next request loads it again"
    gone = onnxstack("models", "ps", directory=deep)
    assert "no engine runs" in gone.stderr


def _row(directory: Path) -> list[str]:
    (line,) = onnxstack("models", "ps", directory=directory).stdout.splitlines()
    return line.split("\t")[1:]


def test_show_tells_a_person_what_a_token_takes(tiny_store: ModelStore, tmp_path: Path) -> None:
    shown = onnxstack("models", "show", "llama", directory=tmp_path, ONNXSTACK_MODELS_DIR=str(tiny_store.root))
    per_token = tiny_store.get("llama").manifest.metadata.kv_bytes_per_token
    assert per_token is not None
    assert f'"kv_bytes_per_token": {per_token}' in shown.stdout
    assert f"KV cache: {per_token:,} bytes per token of each sequence" in shown.stderr
    small = onnxstack(
        "models",
        "show",
        "llama",
        directory=tmp_path,
        ONNXSTACK_MODELS_DIR=str(tiny_store.root),
        ONNXSTACK_ENGINE__KV_BITS="8",
    )
    assert f"KV cache: {per_token // 4:,} bytes per token of each sequence" in small.stderr
    (tmp_path / "settings.yaml").write_text(
        "providers:\n"
        "- {api: inference, provider_id: small, provider_type: 'inline::onnx', config: {kv_bits: 8}}\n"
        "- {api: inference, provider_id: exact, provider_type: 'inline::onnx'}\n"
        "default_providers: {inference: exact}\n"
    )
    several = onnxstack(
        "models",
        "show",
        "llama",
        "--config",
        str(tmp_path / "settings.yaml"),
        directory=tmp_path,
        ONNXSTACK_MODELS_DIR=str(tiny_store.root),
    )
    assert [line.partition(" bytes per token")[0].split()[-1] for line in several.stderr.splitlines()] == [
        f"{per_token // 4:,}",
        f"{per_token:,}",
    ]
    assert [line.partition(":")[0] for line in several.stderr.splitlines()] == ["small", "exact"]
    encoder = onnxstack("models", "show", "words", directory=tmp_path, ONNXSTACK_MODELS_DIR=str(tiny_store.root))
    assert encoder.stderr == ""


def test_a_model_that_was_removed_from_the_store_can_still_be_unloaded(tmp_path: Path, tiny_store: ModelStore) -> None:
    shutil.copytree(tiny_store.root, tmp_path / "store")
    with engine_process(tmp_path, tmp_path / "store") as engine:
        assert models(engine, "load", "llama").returncode == 0
        ModelStore(tmp_path / "store").remove("llama")
        assert list(loaded(engine)) == ["llama"]
        assert models(engine, "unload", "llama").returncode == 0
        assert loaded(engine) == {}


def test_an_adapter_is_pulled_loaded_and_removed_beside_its_base(tmp_path: Path) -> None:
    config = architectures.CONFIGS["llama"]
    store = ModelStore(tmp_path / "store", catalog={})
    store.pull(str(architectures.write_folder(tmp_path / "tiny", config)))
    folder = write_peft(tmp_path / "mine", factors(config, 4, 0), peft_config(4, base="elsewhere/tiny"))
    environment = {"ONNXSTACK_MODELS_DIR": str(store.root)}
    without = onnxstack("models", "pull", str(folder), directory=tmp_path, **environment)
    assert (without.returncode, "elsewhere/tiny" in without.stderr) == (2, True)
    pulled = onnxstack("models", "pull", str(folder), "--base", "tiny", directory=tmp_path, **environment)
    assert pulled.returncode == 0, pulled.stderr
    assert "mine: int8" in pulled.stdout
    shown = onnxstack("models", "show", "mine", directory=tmp_path, **environment)
    assert json.loads(shown.stdout)["base"]["name"] == "tiny"
    with engine_process(tmp_path, store.root) as engine:
        done = models(engine, "load", "mine")
        assert done.returncode == 0, done.stderr
        assert loaded(engine).keys() == {"tiny", "mine"}
    refused = onnxstack("models", "rm", "tiny", directory=tmp_path, **environment)
    assert (refused.returncode, "is the base of mine" in refused.stderr) == (1, True)
    for name in ("mine", "tiny"):
        assert onnxstack("models", "rm", name, directory=tmp_path, **environment).returncode == 0
