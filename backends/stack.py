"""All backends of one process, opened from the settings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from backends.agents.service import Agents
from backends.config import MEMORY_URL, ApiName, BackendSettings
from backends.context import CallContext
from backends.datasets.sources import Sources
from backends.documents import Documents
from backends.errors import StackError
from backends.evaluation.candidates import Candidates
from backends.evaluation.service import Evaluation
from backends.jobs.service import Jobs
from backends.models.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_LLM
from backends.net import Outbound
from backends.ports import JobStore, ResourceStore, Retrieval, Service
from backends.providers import APIS, FACTORIES, Factory, Providers
from backends.rag import Rag
from backends.resources import BUILTIN, Datasets, EvalTasks, Models, ScoringFunctions, Shields, ToolGroups, VectorDbs
from backends.scoring.datasets import DatasetScoring
from backends.scoring.service import Scoring
from backends.synthetic.generation import SyntheticData
from backends.telemetry.inference import traced
from backends.telemetry.recorder import SpanRecorder
from backends.telemetry.service import Telemetry
from backends.telemetry.tracing import Tracing
from backends.training.service import Training
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
    scoring: Scoring
    synthetic: SyntheticData
    eval_tasks: EvalTasks
    tool_groups: ToolGroups
    rag: Retrieval
    agents: Agents
    telemetry: Telemetry
    tracing: Tracing
    jobs: Jobs
    dataset_scoring: DatasetScoring
    evaluation: Evaluation
    training: Training

    def services(self) -> dict[str, Service]:
        """Every part of this server with a life of its own; it is ready when each answers `ping`."""
        return {"store": self.store, **self._services(remote=False)}

    def upstreams(self) -> dict[str, Service]:
        """Every part that others run; when one does not answer `ping` the server is degraded, and ready."""
        return self._services(remote=True)

    def close(self) -> None:
        """Close every part: jobs, leases and spans first, then providers: their last work may still be written."""
        self.jobs.close()
        self.agents.close()
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
    serves: bool = True,
    apis: Collection[ApiName] = APIS,
) -> Backends:
    """Open everything the settings name, register the default models and shield, and drop what a kill left behind.

    Call it in the process that serves, after any fork. version: the server's, for `/v1/version`. factories: of the
    providers by API and type; all that ship if None. spans_dropped: told how many spans were lost, whenever some were.
    serves: False for a process that works on one job beside the server: it registers and drops nothing and takes no
    other jobs. apis: those whose providers are opened; the others have none then.

    Raises:
        Misconfigured: the settings name what does not exist.
        Unavailable: the database does not answer or has a revision that this release must not touch.
    """
    store = _open_store(settings)
    try:
        tracing = Tracing(settings.telemetry)
        known = FACTORIES if factories is None else factories
        providers = Providers(settings, {key: traced(factory, tracing) for key, factory in known.items()}, apis)
    except BaseException:
        store.close()
        raise
    telemetry = _open_telemetry(settings, providers, tracing, spans_dropped)
    models = Models(store, providers)
    vector_dbs = VectorDbs(store, providers, models)
    outbound = Outbound(settings.outbound)
    documents = Documents(outbound, settings.documents)
    rag = Rag(vector_dbs, models, documents, settings.rag)
    shields = Shields(store, providers, models)
    tool_groups = ToolGroups(store, providers, rag)
    agents = Agents(providers, models, shields, tool_groups, vector_dbs, rag, documents, tracing, settings.agents)
    scoring_functions = ScoringFunctions(store, providers)
    datasets = Datasets(store, providers, Sources(settings.datasets, outbound), settings.datasets)
    scoring = Scoring(scoring_functions, models, settings.datasets.answer_rows)
    eval_tasks = EvalTasks(store, providers)
    jobs = Jobs(_open_jobs(settings))
    backends = Backends(
        version=version,
        store=store,
        providers=providers,
        models=models,
        shields=shields,
        vector_dbs=vector_dbs,
        datasets=datasets,
        scoring_functions=scoring_functions,
        scoring=scoring,
        synthetic=SyntheticData(settings.synthetic, models),
        eval_tasks=eval_tasks,
        dataset_scoring=DatasetScoring(scoring, datasets),
        evaluation=Evaluation(eval_tasks, datasets, Candidates(models, agents), scoring, jobs),
        training=Training(providers, models, datasets, jobs),
        tool_groups=tool_groups,
        rag=rag,
        agents=agents,
        telemetry=telemetry,
        tracing=tracing,
        jobs=jobs,
    )
    if not serves:
        return backends
    try:
        _tidy(backends)
        _run_jobs(settings, backends)
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


def _open_jobs(settings: BackendSettings) -> JobStore:
    if settings.database == MEMORY_URL:
        from backends.memory.jobs import MemoryJobStore

        return MemoryJobStore()
    from backends.store import SqlJobStore, open_database

    return SqlJobStore(open_database(settings.database))


def _run_jobs(settings: BackendSettings, backends: Backends) -> None:
    """Work on jobs in this process where no other can: jobs of state in memory, or by the settings."""
    if settings.jobs.runner == "none" or (settings.jobs.runner != "thread" and settings.database != MEMORY_URL):
        return
    from backends.jobs.executions import ThreadExecution
    from backends.jobs.runner import Runner, limits_of
    from backends.jobs.work import work_on
    from backends.jobs.works import WORKS

    store = backends.jobs.store

    def start(claimant: str) -> ThreadExecution:
        return ThreadExecution(lambda cancellation: work_on(store, claimant, backends, WORKS, cancellation))

    backends.jobs.run_here(Runner(store, start, limits_of(settings.jobs)))


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
    for toolgroup_id in BUILTIN:
        try:
            backends.tool_groups.register_if_served(context, toolgroup_id)
        except StackError as error:
            log.warning("default tool group %s is not registered: %s", toolgroup_id, error)
    try:
        collected = backends.vector_dbs.collect(context) + backends.datasets.collect(context)
    except StackError as error:
        log.warning("left-over tables stay until the next start: %s", error)
    else:
        if collected:
            log.info("dropped %d tables that no vector db or dataset names", collected)
