"""How long work on models tells how far it is."""

from __future__ import annotations

from typing import Literal, Protocol

import structlog

Stage = Literal["wait", "fetch", "check", "unpack", "convert", "store"]

log = structlog.get_logger(__name__)


class Progress(Protocol):
    """Called from the thread that pulls, often; must be quick.

    stage: `wait` for another process that pulls the same model, `fetch` the archive, `check` its sha256, `unpack` the
    weights, `convert` them, `store` the result. done, total: bytes, or thousandths while converting; total is 0 while
    unknown.
    """

    def __call__(self, stage: Stage, done: int, total: int) -> None: ...


class LoggedProgress:
    """Passes progress on. Without a listener, who shows it in his own way, it writes one log line per stage."""

    def __init__(self, model: str, listener: Progress | None) -> None:
        self._model = model
        self._listener = listener
        self._stage: Stage | None = None

    def __call__(self, stage: Stage, done: int, total: int) -> None:
        if self._listener is not None:
            self._listener(stage, done, total)
        elif stage != self._stage:
            self._stage = stage
            log.info("model pull", model=self._model, stage=stage)
