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
    any point leaves nothing new at `target` (during a replacement, the old one may be in `.<name>.replaced-*`).
    What killed processes left behind is removed by the next call for the same target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    partial.chmod(0o755)  # mkdtemp's 0700 would keep a server under another account out
    lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield partial
        for path in partial.iterdir():
            _sync(path)
        os.fsync(lock)
        _replace(partial, target)
        _sync(target.parent)
    finally:
        os.close(lock)
        shutil.rmtree(partial, ignore_errors=True)


def _replace(partial: Path, target: Path) -> None:
    if not target.exists():
        partial.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.replaced-", dir=target.parent)) / "old"
    target.rename(old)
    partial.rename(target)
    shutil.rmtree(old.parent)


def _sweep(target: Path) -> None:
    """Remove the partial directories of dead processes: those whose lock nobody holds."""
    for stale in target.parent.glob(f".{target.name}.partial-*"):
        try:
            descriptor = os.open(stale, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
