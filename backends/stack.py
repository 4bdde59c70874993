"""All backends of one process, opened from the settings."""

from __future__ import annotations

from dataclasses import dataclass

from backends.ports import ResourceStore


@dataclass(frozen=True, slots=True)
class Backends:
    """What handlers may use. Opened by `open_backends`, closed by `close`."""

    store: ResourceStore
