"""Safetensors files that lie about themselves, and shard indexes that point elsewhere."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.folder import ModelFolder
from backends.onnx.convert.safetensors import FolderWeights, SafetensorsFile
from tests.backends.onnx.convert import tiny


def raw(header: bytes, data: bytes = b"", declared: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if declared is None else declared) + header + data


def one(data: bytes = b"\0" * 16, **entry: Any) -> bytes:
    made = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **entry}
    return raw(json.dumps({"t": made}).encode(), data)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "too few for a header"),
        (raw(b"{}", declared=1 << 62), "declares a header of 4611686018427387904 bytes"),
        (raw(b"{}", declared=3), "declares a header of 3 bytes"),
        (raw(b"not json"), "not what safetensors describes"),
        (raw(b"[" * 100_000), "not what safetensors describes"),
        (raw(b'{"t": ' * 50_000), "not what safetensors describes"),
        (raw(b'{"t": {"dtype": "F32"}}'), "not what safetensors describes"),
        (one(data=b"\0" * 15), "needs 16 bytes and declares .0, 16. of 15"),
        (one(shape=[1 << 40]), "needs 4398046511104 bytes"),
        (one(shape=[1 << 40, 1 << 40]), "needs"),
        (one(shape=[-4]), "has the shape"),
        (one(data_offsets=[-16, 0]), "declares"),
        (one(data_offsets=[16, 0]), "declares"),
        (one(data_offsets=[0, 1 << 60]), "declares"),
        (one(data_offsets=[1 << 60, (1 << 60) + 16]), "declares"),
        (one(data_offsets=[0, 1 << 70]), "declares"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_a_file_that_contradicts_itself_is_corrupt_and_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CorruptModel, match=reason) as caught:
        FolderWeights(ModelFolder(tmp_path))
    assert caught.value.file == "model.safetensors"


def test_a_sound_file_gives_its_numbers(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    tiny.write_safetensors(tmp_path / "model.safetensors", {"t": numbers})
    weights = FolderWeights(ModelFolder(tmp_path))
    assert weights.shapes == {"t": (2, 3)}
    np.testing.assert_array_equal(weights.weight("t"), numbers)


def test_whole_numbers_may_lie_in_a_file_but_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(one(dtype="I32"))
    weights = FolderWeights(ModelFolder(tmp_path))
    with pytest.raises(Unsupported, match="holds I32"):
        weights.weight("t")


def test_an_unknown_number_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(one(dtype="F4"))
    with pytest.raises(Unsupported, match="F4"):
        FolderWeights(ModelFolder(tmp_path))


@pytest.mark.parametrize(
    "shard",
    [
        "../../etc/passwd",
        "../outside/x.safetensors",
        "/etc/passwd",
        "sub/x.safetensors",
        "..",
        "",
        "x\x00.safetensors",
        "..\\x.safetensors",
        "a" * 5000 + ".safetensors",
        "missing.safetensors",
        "link.safetensors",
        "folder.safetensors",
    ],
)
def test_a_shard_outside_the_folder_is_refused_and_never_opened(tmp_path: Path, shard: str) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    tiny.write_safetensors(outside / "x.safetensors", {"t": np.ones(4, np.float32)})
    (inside / "link.safetensors").symlink_to(outside / "x.safetensors")
    (inside / "folder.safetensors").mkdir()
    (inside / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"t": shard}}))
    before = (outside / "x.safetensors").stat().st_atime_ns
    with pytest.raises(CorruptModel):
        FolderWeights(ModelFolder(inside))
    assert (outside / "x.safetensors").stat().st_atime_ns == before


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    tiny.write_safetensors(tmp_path / "real.safetensors", {"t": np.ones(4, np.float32)})
    (tmp_path / "model.safetensors").symlink_to("real.safetensors")
    assert FolderWeights(ModelFolder(tmp_path)).shapes == {"t": (4,)}


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"t": 1}}', "{"])
def test_an_index_that_is_no_index_is_corrupt(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CorruptModel, match=r"index\.json"):
        FolderWeights(ModelFolder(tmp_path))


def test_a_tensor_that_its_shard_does_not_hold_is_corrupt(tmp_path: Path) -> None:
    tiny.write_safetensors(tmp_path / "a.safetensors", {"t": np.ones(4, np.float32)})
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"u": "a.safetensors"}}')
    with pytest.raises(CorruptModel, match="'u' of the index is not in it"):
        FolderWeights(ModelFolder(tmp_path))


def test_a_pipe_in_place_of_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(CorruptModel, match="is missing"):
        SafetensorsFile(ModelFolder(tmp_path), "model.safetensors")


def test_a_json_file_of_absurd_size_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(CorruptModel, match="has over 16777216 bytes"):
        ModelFolder(tmp_path).json("config.json")
