"""All backends of one process, opened from the settings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from backends.config import MEMORY_URL, ApiName, BackendSettings
from backends.context import CallContext
from backends.datasets.sources import NoOutbound, Sources
from backends.errors import StackError
from backends.models.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_LLM
from backends.ports import ResourceStore, Retrieval, Service
from backends.providers import FACTORIES, Factory, Providers
from backends.rag import Rag
from backends.resources import Datasets, EvalTasks, Models, ScoringFunctions, Shields, ToolGroups, VectorDbs
from backends.telemetry.inference import traced
from backends.telemetry.recorder import SpanRecorder
from backends.telemetry.service import Telemetry
from backends.telemetry.tracing import Tracing
from generated.models import ModelType

log = logging.getLogger(__name__)

ENGINE_ANSWERS_S = 30.0
"""Seconds that a start waits for an engine to say whether it has the model of the default shield."""
DEFAULT_SHIELD, DEFAULT_SHIELD_TYPE = "guardian", "inline::guardian"
DEFAULT_MODELS: tuple[tuple[str, ModelType], ...] = ((DEFAULT_LLM, "llm"), (DEFAULT_EMBEDDING_MODEL, "embedding"))


@dataclass(frozen=True, slots=True)
class Backends:
    """What handlers may use. Opened by `open_backends`, closed by `close`."""

    version: str
    store: ResourceStore
    providers: Providers
    models: Models
    shields: Shields
    vector_dbs: VectorDbs
    datasets: Datasets
    scoring_functions: ScoringFunctions
    eval_tasks: EvalTasks
    tool_groups: ToolGroups
    rag: Retrieval
    telemetry: Telemetry
    tracing: Tracing

    def services(self) -> dict[str, Service]:
        """Every part of this server with a life of its own; it is ready when each answers `ping`."""
        return {"store": self.store, **self._services(remote=False)}

    def upstreams(self) -> dict[str, Service]:
        """Every part that others run; when one does not answer `ping` the server is degraded, and ready."""
        return self._services(remote=True)

    def close(self) -> None:
        """Close every part: spans first, then providers, since their last work may still be written."""
        self.tracing.close()
        self.telemetry.close()
        self.providers.close()
        self.store.close()

    def _services(self, *, remote: bool) -> dict[str, Service]:
        return {
            name: service
            for provider in self.providers.list()
            if provider.remote == remote
            for name, service in provider.services()
        }


def open_backends(
    settings: BackendSettings,
    *,
    version: str = "0",
    factories: Mapping[tuple[ApiName, str], Factory] | None = None,
    spans_dropped: Callable[[int], None] = lambda _: None,
) -> Backends:
    """Open everything the settings name, register the default models and shield, and drop what a kill left behind.

    Call it in the process that serves, after any fork. version: the server's, for `/v1/version`. factories: of the
    providers by API and type; all that ship if None. spans_dropped: told how many spans were lost, whenever some were.

    Raises:
        Misconfigured: the settings name what does not exist.
        Unavailable: the database does not answer or has a revision that this release must not touch.
    """
    store = _open_store(settings)
    try:
        tracing = Tracing(settings.telemetry)
        known = FACTORIES if factories is None else factories
        providers = Providers(settings, {key: traced(factory, tracing) for key, factory in known.items()})
    except BaseException:
        store.close()
        raise
    telemetry = _open_telemetry(settings, providers, tracing, spans_dropped)
    models = Models(store, providers)
    vector_dbs = VectorDbs(store, providers, models)
    rag = Rag(vector_dbs, models)
    backends = Backends(
        version=version,
        store=store,
        providers=providers,
        models=models,
        shields=Shields(store, providers, models),
        vector_dbs=vector_dbs,
        datasets=Datasets(store, providers, Sources(settings.datasets, NoOutbound()), settings.datasets),
        scoring_functions=ScoringFunctions(store, providers),
        eval_tasks=EvalTasks(store, providers),
        tool_groups=ToolGroups(store, providers, rag),
        rag=rag,
        telemetry=telemetry,
        tracing=tracing,
    )
    try:
        _tidy(backends)
    except BaseException:
        backends.close()
        raise
    return backends


def _open_store(settings: BackendSettings) -> ResourceStore:
    if settings.database == MEMORY_URL:
        from backends.memory.resources import MemoryResourceStore

        return MemoryResourceStore()
    from backends.store import SqlResourceStore, open_database

    return SqlResourceStore(open_database(settings.database))


def _open_telemetry(
    settings: BackendSettings, providers: Providers, tracing: Tracing, dropped: Callable[[int], None]
) -> Telemetry:
    if not providers.types("telemetry"):
        return Telemetry(providers)
    recorder = SpanRecorder(providers.telemetry(), settings.telemetry, dropped)
    tracing.add(recorder)
    return Telemetry(providers, recorder)


def _tidy(backends: Backends) -> None:
    context = CallContext(request_id="start")
    for model_id, model_type in DEFAULT_MODELS:
        try:
            backends.models.register_if_served(context, model_id, model_type)
        except StackError as error:
            # A damaged model must not keep the others from being served.
            log.warning("default model %s is not registered: %s", model_id, error)
    try:
        limited = CallContext(request_id="start", deadline=time.time() + ENGINE_ANSWERS_S)
        backends.shields.register_if_served(limited, DEFAULT_SHIELD, DEFAULT_SHIELD_TYPE)
    except StackError as error:
        log.warning("default shield %s is not registered: %s", DEFAULT_SHIELD, error)
    try:
        collected = backends.vector_dbs.collect(context) + backends.datasets.collect(context)
    except StackError as error:
        log.warning("left-over tables stay until the next start: %s", error)
    else:
        if collected:
            log.info("dropped %d tables that no vector db or dataset names", collected)
