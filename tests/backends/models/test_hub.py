"""`models pull hf:org/name` against a stand-in for the hub, by the real library in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.errors import Unsupported
from backends.models.catalog import CATALOG
from backends.models.sources import resolve
from backends.models.store import ModelStore
from tests.backends.models.hub_stand_in import TOKEN, Hub, serving
from tests.backends.onnx.convert import tiny
from tests.server.test_cli import onnxstack
from tests.servers import free_port

CARD = "---\nlicense: cc-by-4.0\n---\n# Tiny\n"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub with one random Llama, and beside it what no pull needs."""
    weights = tiny.weights(tiny.CONFIG, tiny.HUGGING_FACE_NAMES)
    folder = tiny.write_folder(tmp_path / "hub", tiny.CONFIG, weights)
    (folder / "README.md").write_text(CARD)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "copy.safetensors").write_bytes(b"a copy")
    with serving(Hub(folder)) as hub:
        yield hub


def pull(
    hub: Hub, directory: Path, reference: str = "hf:lab/tiny", **environment: str
) -> subprocess.CompletedProcess[str]:
    """The verb, with a cache of its own."""
    cache = {"HF_HOME": str(directory / "hf"), "HF_ENDPOINT": hub.url, "HF_TOKEN": "", "HF_HUB_OFFLINE": ""}
    return onnxstack("models", "pull", reference, directory=directory, **{**cache, **environment})


def test_a_model_of_the_hub_is_fetched_checked_and_converted(hub: Hub, tmp_path: Path) -> None:
    pulled = pull(hub, tmp_path)
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.startswith("lab/tiny: int8, ")
    assert "licence cc-by-4.0, ready" in pulled.stdout
    assert [line.partition(": ")[2].partition(" (")[0] for line in pulled.stderr.splitlines()] == [
        "fetching",
        "checking",
        "converting",
        "storing",
    ]
    manifest = ModelStore(tmp_path / "models").get("lab/tiny").manifest
    assert (manifest.source.kind, manifest.source.name, manifest.source.version) == ("hub", "lab/tiny", hub.commit)
    assert "chat_template.jinja" in manifest.files
    fetched = {path.rpartition("/")[2] for _, path in hub.asked if "/resolve/" in path}
    assert "model.safetensors" in fetched
    assert not fetched & {"pytorch_model.bin", "copy.safetensors"}

    (tmp_path / "manifest").write_text(manifest.to_json())
    assert pull(hub, tmp_path, "hf:lab/tiny@main").returncode == 0
    assert ModelStore(tmp_path / "models").get("lab/tiny").manifest == manifest, "again changes nothing"


def test_what_the_cache_holds_is_enough_without_a_hub(hub: Hub, tmp_path: Path) -> None:
    refused = pull(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert refused.returncode == 1
    assert refused.stderr == (
        "error: hf:lab/tiny cannot be fetched: HF_HUB_OFFLINE is set, and the cache does not have the model whole\n"
    )
    assert hub.asked == []
    assert pull(hub, tmp_path).returncode == 0
    assert onnxstack("models", "rm", "lab/tiny", directory=tmp_path).returncode == 0
    asked = len(hub.asked)
    again = pull(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert len(hub.asked) == asked
    assert ModelStore(tmp_path / "models").get("lab/tiny").manifest.source.version == hub.commit


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_is_not_what_the_hub_states_is_refused_and_fetched_anew(
    hub: Hub, tmp_path: Path, name: str
) -> None:
    hub.torn = frozenset({name})
    refused = pull(hub, tmp_path)
    assert refused.returncode == 1
    assert f"error: model file {name}: has digest" in refused.stderr
    assert "the hub states" in refused.stderr
    assert "lab/tiny" not in ModelStore(tmp_path / "models")
    hub.torn = frozenset()
    assert pull(hub, tmp_path).returncode == 0


def test_a_gated_model_says_what_to_do_and_takes_the_token_of_the_library(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    for token in ("", "hf_another"):
        refused = pull(hub, tmp_path, HF_TOKEN=token)
        assert refused.returncode == 1
        assert "hf:lab/tiny is gated: accept its terms" in refused.stderr
        assert "HF_TOKEN" in refused.stderr
    allowed = pull(hub, tmp_path, HF_TOKEN=TOKEN)
    assert allowed.returncode == 0, allowed.stderr
    manifest = ModelStore(tmp_path / "models").get("lab/tiny").manifest
    assert TOKEN not in allowed.stdout + allowed.stderr + manifest.to_json()


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("hf:lab/nothing", "the hub has no model 'lab/nothing'"),
        ("hf:lab/tiny@v9", "the hub's model 'lab/tiny' has no revision 'v9'"),
        ("hf:", "expected hf:org/name"),
        ("hf:../../etc", "expected hf:org/name"),
    ],
)
def test_what_the_hub_does_not_have_is_said_in_one_line(hub: Hub, tmp_path: Path, reference: str, reason: str) -> None:
    refused = pull(hub, tmp_path, reference)
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.startswith("error: ")
    assert reason in refused.stderr


def test_a_hub_that_is_away_or_fails_is_unavailable_with_the_reason(hub: Hub, tmp_path: Path) -> None:
    away = pull(hub, tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert away.returncode == 1
    assert "error: hf:lab/tiny cannot be fetched: ConnectError: " in away.stderr
    hub.broken = True
    failing = pull(hub, tmp_path)
    assert failing.returncode == 1
    assert "cannot be fetched" in failing.stderr
    assert "503" in failing.stderr


def test_without_the_library_the_command_that_brings_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(Unsupported, match=r"hf:lab/tiny: needs huggingface_hub.*pip install 'onnxstack\[hub\]'"):
        resolve("hf:lab/tiny", CATALOG)
