"""The only place that opens a URL or a path that a client named."""

from __future__ import annotations

from backends.net.outbound import Fetched, Outbound

__all__ = ["Fetched", "Outbound"]
