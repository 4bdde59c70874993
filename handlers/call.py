"""What every handler gets beside its arguments."""

from __future__ import annotations

from dataclasses import dataclass

from backends.context import CallContext
from backends.stack import Backends


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operation: its context and the backends that may serve it."""

    context: CallContext
    backends: Backends
