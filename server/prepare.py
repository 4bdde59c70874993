"""What must be there before workers start: the state's tables and the models that the providers serve by default."""

from __future__ import annotations

import sys

from backends.config import MEMORY_URL
from backends.errors import StackError
from server.logs import get_logger
from server.settings import Settings


def prepare_state(settings: Settings) -> None:
    """Make the data directory and bring our own database to this release's revision; exits with one line if it cannot.

    Runs in the gunicorn master, so that a refusal is said once and not by every worker that would die of it.
    """
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        if settings.database != MEMORY_URL:
            from backends.store.migrate import open_database

            open_database(settings.database).close()
    except (StackError, OSError) as error:
        get_logger("onnxstack").error("cannot start", reason=str(error))
        sys.exit(1)


def missing_models(settings: Settings) -> list[str]:
    """Names of the default models that are not in the store although a provider serves them."""
    from backends.models.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_LLM
    from backends.models.store import ModelStore

    if not any(provider.provider_type == "inline::onnx" for provider in settings.providers):
        return []
    store = ModelStore(settings.models)
    return [name for name in (DEFAULT_LLM, DEFAULT_EMBEDDING_MODEL) if name not in store]
