"""Logs: one stream of structured lines for our own events and those of gunicorn, uvicorn, alembic and warnings.

JSON objects, one per line, or coloured text for people. Secrets never appear: `Secrets` and `SecretStr` print as
hidden, members with a secret's name are masked, bearer tokens and passwords in URLs are masked wherever they stand in
a text, and tracebacks carry no local variables.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from gunicorn.config import Config
from gunicorn.glogging import Logger as GunicornLogger
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.types import EventDict, Processor, WrappedLogger

from server.redaction import mask
from server.settings import LogSettings

QUIET = (
    "uvicorn", "alembic", "asyncio", "connexion", "httpx", "httpx2", "httpcore", "httpcore2", "urllib3",
    "openapi_spec_validator",
)  # fmt: skip
SILENT = ("mcp", "client")  # both are of the MCP SDK
"""What goes wrong with a server that a client names is an answer, and no traceback with what that server sent."""


def _mask_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    record, from_structlog = event.pop("_record", None), event.pop("_from_structlog", None)
    masked: EventDict = mask(event)
    if record is not None:
        masked["_record"], masked["_from_structlog"] = record, from_structlog
    return masked


def configure_logs(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send every log line of this process through one handler. Calling it again replaces the handler.

    stream: where lines go; standard error if None.
    """
    stream = stream or sys.stderr
    json = settings.format == "json" or (settings.format == "auto" and not stream.isatty())
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    render: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        if json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    formatter = ProcessorFormatter(
        foreign_pre_chain=before, processors=[_mask_event, ProcessorFormatter.remove_processors_meta, render]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for name in ("gunicorn.error", "uvicorn", "uvicorn.error"):
        joined = logging.getLogger(name)
        joined.handlers, joined.propagate = [], True
        joined.setLevel(logging.NOTSET)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *before, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> BoundLogger:
    """A structured logger: `log.info("event_name", member=value)`."""
    logger: BoundLogger = structlog.stdlib.get_logger(name)
    return logger


class JoinedLogger(GunicornLogger):
    """gunicorn's logger without handlers of its own: its lines join ours. Access lines come from `server/http`."""

    def setup(self, cfg: Config) -> None:
        self.error_log.propagate = True
        self.error_log.handlers = []
        self.error_log.setLevel(logging.NOTSET)
        self.access_log.handlers = []

    def reopen_files(self) -> None:
        """Nothing to reopen: lines go to standard error."""

    def close_on_exec(self) -> None:
        """Nothing to close."""
