"""A directory that appears whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def published(target: Path) -> Iterator[Path]:
    """An empty directory to fill, which becomes `target` when the block ends without an error.

    It lies beside `target` as `.<name>.partial-*` until its files are on disk, and is then renamed: a process killed at
    any point leaves nothing half-made at `target`. What killed processes left behind is cleaned up by the next call for
    the same target: partial directories are removed, and a directory that was being replaced is put back.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    with _locked_directory(target, "partial") as partial:
        yield partial
        for path in partial.iterdir():
            _sync(path)
        _sync(partial)
        if target.exists():
            with _locked_directory(target, "replaced") as replaced:
                target.rename(replaced / "old")
                try:
                    partial.rename(target)
                except OSError:
                    (replaced / "old").rename(target)
                    raise
        else:
            partial.rename(target)
        _sync(target.parent)


@contextmanager
def _locked_directory(target: Path, purpose: str) -> Iterator[Path]:
    """A directory beside `target` for as long as the block runs; its lock tells others that its maker is alive."""
    directory = Path(tempfile.mkdtemp(prefix=f".{target.name}.{purpose}-", dir=target.parent))
    directory.chmod(0o755)  # mkdtemp's 0700 would keep a server under another account out
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory
    finally:
        os.close(lock)
        shutil.rmtree(directory, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Clean up after dead processes: those whose lock nobody holds."""
    for stale in target.parent.glob(f".{target.name}.[pr]*-*"):
        try:
            descriptor = os.open(stale, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (stale / "old").is_dir() and not target.exists():
                (stale / "old").rename(target)
            shutil.rmtree(stale, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
