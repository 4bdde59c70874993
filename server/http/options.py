"""What the HTTP layer needs of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Limits, keys and times of one worker process.

    worker_threads: calls and streams that run at a time. short_threads: more threads, for GETs only.
    stream_limit: generations (streamed or not) that run at a time; one more gets 429. Must be below worker_threads.
    short_queue: GETs that may wait for one of the short threads; one more gets 429.
    body_limit_bytes: largest request body. json_depth: its deepest nesting. json_values: about how many values it has.
    body_timeout_s: seconds a client may take to send its body; header_timeout_s: its request line and headers.
    write_timeout_s: seconds a response waits for a client that does not read.
    ready_timeout_s: seconds that all parts together get to answer the readiness probe.
    request_timeout_s: seconds until a call is given up with 504. ping_interval_s: seconds of silence before `: ping`.
    api_keys: SHA-256 of a key in lower-case hex -> its name; empty: no key is asked for.
    isolation: `per_key` makes each key the owner of what it writes.
    cors_origins: origins whose pages may call, `*` for all; empty: no CORS headers at all.
    """

    worker_threads: int = 64
    short_threads: int = 8
    short_queue: int = 256
    stream_limit: int = 48
    body_limit_bytes: int = 32 * 1024 * 1024
    json_depth: int = 128
    json_values: int = 250_000
    body_timeout_s: float = 30.0
    header_timeout_s: float = 15.0
    write_timeout_s: float = 60.0
    request_timeout_s: float = 600.0
    ready_timeout_s: float = 2.0
    ping_interval_s: float = 15.0
    api_keys: Mapping[str, str] = field(default_factory=dict)
    isolation: Literal["shared", "per_key"] = "shared"
    cors_origins: tuple[str, ...] = ()
    cors_credentials: bool = False
    cors_max_age_s: int = 600

    def __post_init__(self) -> None:
        if self.stream_limit >= self.worker_threads:
            raise ValueError(
                f"stream_limit ({self.stream_limit}) must be below worker_threads ({self.worker_threads}):"
                " other requests would starve"
            )
