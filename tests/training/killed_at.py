"""An attempt at a job, `python -m tests.training.killed_at CLAIMANT`, that SIGKILL ends at `$KILL_PLACE`.

Only the first attempt that comes there, which leaves the file `$KILL_MARK`, is ended.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import torch

from backends.jobs.running import RunningJob
from backends.resources import Datasets, Models
from backends.training import loop, publish
from server import job

MARK = Path(os.environ["KILL_MARK"])
Change = Callable[[Callable[..., Any]], Callable[..., Any]]


def die() -> None:
    if not MARK.exists():
        MARK.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def before(number: int) -> Change:
    """Ended when the place is called for the `number`th time."""

    def change(real: Callable[..., Any]) -> Callable[..., Any]:
        calls = iter(range(1, 1000))

        def called(*arguments: Any, **named: Any) -> Any:
            if next(calls) == number:
                die()
            return real(*arguments, **named)

        return called

    return change


def after_a_row(real: Callable[..., Any]) -> Callable[..., Any]:
    def rows(*arguments: Any, **named: Any) -> Iterator[Any]:
        for row in real(*arguments, **named):
            yield row
            die()

    return rows


def half_a_state(real: Callable[..., Any]) -> Callable[..., Any]:
    def save(state: Any, stream: Any) -> None:
        real(state, stream)
        if not MARK.exists():
            stream.truncate(stream.tell() // 2)
            die()

    return save


def half_an_adapter(real: Callable[..., Any]) -> Callable[..., Any]:
    def save(self: Any, directory: str) -> None:
        real(self, directory)
        _halve(Path(directory) / "adapter_model.safetensors")

    return save


def half_a_model(real: Callable[..., Any]) -> Callable[..., Any]:
    def convert(base: Path, decoder: Any, target: Path, **named: Any) -> None:
        real(base, decoder, target, **named)
        _halve(target / "model.onnx.data")

    return convert


def _halve(file: Path) -> None:
    if not MARK.exists():
        os.truncate(file, file.stat().st_size // 2)
        die()


PLACES: dict[str, tuple[Any, str, Change]] = {
    "while data is read": (Datasets, "read", after_a_row),
    "in a step of the second epoch": (loop.Trainer, "_clip", before(4)),
    "while the model is converted": (publish, "convert_trained", half_a_model),
    "while a checkpoint is written": (peft.PeftModel, "save_pretrained", half_an_adapter),
    "while its state is written": (torch, "save", half_a_state),
    "before a model is registered": (Models, "register", before(1)),
    "before an epoch is written down": (RunningJob, "save_part", before(2)),
    "before the last registration": (Models, "register", before(3)),
}

if __name__ == "__main__":
    owner, name, change = PLACES[os.environ["KILL_PLACE"]]
    setattr(owner, name, change(getattr(owner, name)))
    job.main()
