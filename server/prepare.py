"""What must be there before workers start: engines, the tables of the state, and the default models."""

from __future__ import annotations

import sys
from typing import NoReturn

from backends.config import MEMORY_URL
from backends.errors import StackError
from server.engines import Engines, runs_models
from server.jobs import JobRunner
from server.logs import get_logger
from server.settings import Settings


def start_engines(settings: Settings) -> Engines:
    """Start the server's own engines; exits with one line if the settings of its providers do not fit.

    Runs in the gunicorn master, so that a refusal is said once and not by every worker that would die of it.
    """
    try:
        return Engines(settings.backends)
    except (StackError, OSError) as error:
        _refuse(error)


def start_jobs(settings: Settings) -> JobRunner:
    """Start the server's own runner of jobs; exits with one line if the settings do not fit."""
    try:
        return JobRunner(settings.backends)
    except (StackError, OSError) as error:
        _refuse(error)


def prepare_state(settings: Settings) -> None:
    """Make the data directory and bring our own database to this release's revision; exits with one line if it cannot.

    Runs in the gunicorn master, as `start_engines` does.
    """
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        if settings.database != MEMORY_URL:
            from backends.store.migrate import open_database

            open_database(settings.database).close()
    except (StackError, OSError) as error:
        _refuse(error)


def _refuse(error: StackError | OSError) -> NoReturn:
    where = f"{error.where}: " if isinstance(error, StackError) and error.where else ""
    get_logger("onnxstack").error("cannot start", reason=f"{where}{error}")
    sys.exit(1)


def missing_models(settings: Settings) -> list[str]:
    """Names of the default models that are not in the store although a provider serves them."""
    from backends.models.catalog import DEFAULT_MODELS
    from backends.models.store import ModelStore

    if not runs_models(settings.backends):
        return []
    store = ModelStore(settings.models)
    return [name for name in DEFAULT_MODELS if name not in store]
