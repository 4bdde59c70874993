"""What an engine's process lets its operator do with the models in its memory."""

from __future__ import annotations

from typing import Protocol

import msgspec


class LoadedModel(msgspec.Struct, frozen=True):
    """A model in the memory of an engine.

    size: bytes of its files. running, waiting: sequences of a generator; of an encoder `running` is the calls that hold
    it. prefix_tokens: of earlier prompts whose KV is kept. prefix_bytes: what that takes. idle_s: seconds since it was
    last asked for; None while it works or is being loaded.
    """

    name: str
    size: int
    running: int
    waiting: int
    prefix_tokens: int
    prefix_bytes: int
    idle_s: float | None


class ModelControl(Protocol):
    """What an engine's process lets its operator do."""

    def list(self) -> list[LoadedModel]:
        """The loaded models, and those that are being loaded, by name."""

    def load(self, name: str) -> None:
        """Return when the model is in memory. Raises UnknownReference, CorruptModel, Overloaded, Unavailable."""

    def unload(self, name: str) -> None:
        """Give the model's memory up. Raises UnknownReference: it is not loaded. Overloaded: it is in use."""
