"""Who serves which API: the providers of the settings, opened, and the rule that chooses one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, get_args

from pydantic import ValidationError

from backends.config import INPROC, MEMORY_URL, ApiName, BackendSettings, EngineSettings, ProviderSettings, Section
from backends.errors import BadRequest, Misconfigured, NoProvider
from backends.openai.settings import OpenAISettings
from backends.ports import (
    AgentStore,
    Classifier,
    Embedder,
    GuardModels,
    ModelTrainer,
    Retrieval,
    RowScoring,
    RowStore,
    Safety,
    Service,
    TelemetryStore,
    TextGenerator,
    ToolRuntime,
    VectorIndex,
)
from backends.safety.code_scanner import CodeScannerSafety, CodeScannerSettings
from backends.safety.guardian import GuardianSafety, GuardianSettings
from backends.safety.llama_guard import LlamaGuardSafety, LlamaGuardSettings
from backends.safety.prompt_guard import PromptGuardSafety, PromptGuardSettings
from backends.sandbox.settings import CodeInterpreterSettings
from backends.scoring.settings import BraintrustSettings, CodeScoringSettings
from backends.tools.settings import SearchSettings
from backends.training.settings import TrainingSettings
from generated.models import ModelType

if TYPE_CHECKING:
    from backends.onnx.scheduler import SchedulerStats

APIS: tuple[ApiName, ...] = get_args(ApiName)


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider and its ports: those that its API needs and its technology has.

    models: the names it knows of a model type, for messages; None where it takes any. device: where it computes and
    why; None where that is no question. stats: counters of its engine by model; None where it has no engine. safety:
    its shields, given the models to judge with, which others have. tools: its tools, given the retrieval that some of
    them run on. scoring: functions that others than the rules of basic functions and judges run.
    """

    api: ApiName
    provider_id: str
    provider_type: str
    generator: TextGenerator | None = None
    embedder: Embedder | None = None
    classifier: Classifier | None = None
    vectors: VectorIndex | None = None
    telemetry: TelemetryStore | None = None
    agents: AgentStore | None = None
    rows: RowStore | None = None
    models: Callable[[ModelType], Sequence[str]] | None = None
    device: Callable[[], str] | None = None
    stats: Callable[[], Mapping[str, SchedulerStats]] | None = None
    safety: Callable[[GuardModels], Safety] | None = None
    tools: Callable[[Retrieval], ToolRuntime] | None = None
    trainer: ModelTrainer | None = None
    scoring: RowScoring | None = None

    @property
    def remote(self) -> bool:
        """Whether others run it: when it is away this server still serves everything else."""
        return self.provider_type.startswith("remote::")

    def services(self) -> Iterator[tuple[str, Service]]:
        """Its parts by name, `inference:onnx:generator`."""
        for role in ("generator", "embedder", "classifier", "vectors", "telemetry", "agents", "rows"):
            service: Service | None = getattr(self, role)
            if service is not None:
                yield f"{self.api}:{self.provider_id}:{role}", service


Factory = Callable[[BackendSettings, ProviderSettings], Provider]


class Providers:
    """All providers of one process."""

    def __init__(
        self,
        settings: BackendSettings,
        factories: Mapping[tuple[ApiName, str], Factory] | None = None,
        apis: Collection[ApiName] = APIS,
    ) -> None:
        """Open every provider of the settings that serves one of the APIs.

        Raises:
            Misconfigured: an unknown type, an id used twice, options that the type does not take or that are wrong, or
            a default that is no provider of its API.
        """
        known = FACTORIES if factories is None else factories
        self._defaults = dict(settings.chosen_providers)
        self._providers: dict[ApiName, dict[str, Provider]] = {api: {} for api in APIS}
        check_providers(settings, known)
        try:
            for entry in settings.providers:
                if entry.api not in apis:
                    continue
                provider = known[entry.api, entry.provider_type](settings, entry)
                self._providers[entry.api][entry.provider_id] = provider
        except BaseException:
            self.close()
            raise

    def list(self) -> list[Provider]:
        """All providers, by API."""
        return [provider for by_id in self._providers.values() for provider in by_id.values()]

    def require(self, api: ApiName) -> None:
        """Return if the API has a provider. Raises NoProvider."""
        if not self._providers[api]:
            raise NoProvider(api)

    def types(self, api: ApiName) -> Sequence[str]:
        """The types that serve an API, each once."""
        return sorted({provider.provider_type for provider in self._providers[api].values()})

    def resolve(self, api: ApiName, provider_id: str | None) -> Provider:
        """The provider that a request means: the one it names, else the default, else the only one.

        Raises:
            NoProvider: the API has none. BadRequest: it has no such one, or several and no default.
        """
        self.require(api)
        by_id = self._providers[api]
        known = ", ".join(f"`{known_id}`" for known_id in by_id)
        chosen = provider_id if provider_id is not None else self._defaults.get(api)
        if chosen is None:
            if len(by_id) > 1:
                raise BadRequest(
                    f"api {api} has several providers and no default: name one of {known}", where="/provider_id"
                )
            return next(iter(by_id.values()))
        if chosen not in by_id:
            raise BadRequest(f"provider `{chosen}` not found for api {api}, known: {known}", where="/provider_id")
        return by_id[chosen]

    def telemetry(self) -> TelemetryStore:
        """The store of the telemetry API. Raises NoProvider, or BadRequest for several and no default."""
        store = self.resolve("telemetry", None).telemetry
        if store is None:
            raise NoProvider("telemetry")
        return store

    def agents(self) -> AgentStore:
        """The store of the agents API. Raises NoProvider, or BadRequest for several and no default."""
        store = self.resolve("agents", None).agents
        if store is None:
            raise NoProvider("agents")
        return store

    def services(self) -> dict[str, Service]:
        """Every part of every provider by its name."""
        return {name: service for provider in self.list() for name, service in provider.services()}

    def close(self) -> None:
        """Close every part."""
        for service in self.services().values():
            service.close()


def check_providers(settings: BackendSettings, factories: Mapping[tuple[ApiName, str], Factory] | None = None) -> None:
    """Return if the providers of the settings can be opened as far as the settings tell. Raises Misconfigured."""
    known = FACTORIES if factories is None else factories
    seen: set[tuple[ApiName, str]] = set()
    for index, entry in enumerate(settings.providers):
        if (entry.api, entry.provider_type) not in known:
            types = ", ".join(sorted(kind for api, kind in known if api == entry.api)) or "none in this release"
            raise Misconfigured(
                f"provider `{entry.provider_id}`: no type {entry.provider_type!r} for api {entry.api}; known: {types}",
                where=f"providers.{index}.provider_type",
            )
        if (entry.api, entry.provider_id) in seen:
            raise Misconfigured(
                f"provider `{entry.provider_id}` of api {entry.api} is there twice: ids are unique within an api",
                where=f"providers.{index}.provider_id",
            )
        _check_options(entry, where=f"providers.{index}.config")
        seen.add((entry.api, entry.provider_id))
    for api, provider_id in settings.default_providers.items():
        if (api, provider_id) not in seen:
            ids = ", ".join(sorted(f"`{known_id}`" for known_api, known_id in seen if known_api == api)) or "none"
            raise Misconfigured(
                f"default provider `{provider_id}` is no provider of api {api}; it has {ids}",
                where=f"default_providers.{api}",
            )


def _check_options(entry: ProviderSettings, *, where: str) -> None:
    options = OPTIONS.get((entry.api, entry.provider_type))
    if options is None:
        if entry.config:
            raise Misconfigured(
                f"provider `{entry.provider_id}`: {entry.provider_type} takes no options, found {sorted(entry.config)}",
                where=where,
            )
        return
    try:
        options.model_validate(entry.config)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)  # it may be a secret
        problems = [
            f"{where}.{name}: {_fault(name, fault['type'], fault['msg'], options)}"
            for fault in faults
            for name in [".".join(map(str, fault["loc"]))]
        ]
        raise Misconfigured(f"provider `{entry.provider_id}`: {'; '.join(problems)}", where=where) from None


def _fault(name: str, kind: str, message: str, options: type[Section]) -> str:
    if kind == "missing":
        return "is required"
    if kind != "extra_forbidden":
        return message.removeprefix("Value error, ")
    near = difflib.get_close_matches(name, options.model_fields, n=1, cutoff=0.5)
    return (
        f"unknown option; did you mean {near[0]}?"
        if near
        else f"unknown option; known: {', '.join(options.model_fields)}"
    )


def engine_settings(settings: BackendSettings, entry: ProviderSettings) -> EngineSettings:
    """The engine's settings for one provider: the common ones under its own."""
    return EngineSettings.model_validate({**settings.engine.model_dump(), **entry.config})


# Each factory imports its technology itself: a server loads only what its settings name.


def _onnx_inference(settings: BackendSettings, entry: ProviderSettings) -> Provider:
    engine = engine_settings(settings, entry)
    if engine.address not in ("", INPROC):  # a server puts the address of the engine that it starts for an empty one
        return _remote_inference(engine, entry)
    from backends.engine.parts import open_parts

    parts = open_parts(settings.models, engine)
    return Provider(
        entry.api,
        entry.provider_id,
        entry.provider_type,
        generator=parts.generator,
        embedder=parts.embedder,
        classifier=parts.classifier,
        models=parts.models,
        device=parts.device,
        stats=parts.generator.stats,
    )


def _remote_inference(engine: EngineSettings, entry: ProviderSettings) -> Provider:
    from backends.engine.address import endpoint_of
    from backends.engine.client import EngineConnection
    from backends.engine.remote import (
        RemoteClassifier,
        RemoteEmbedder,
        RemoteTextGenerator,
        remote_device,
        remote_models,
    )

    connection = EngineConnection(endpoint_of(engine))
    generator = RemoteTextGenerator(connection)
    return Provider(
        entry.api,
        entry.provider_id,
        entry.provider_type,
        generator=generator,
        embedder=RemoteEmbedder(connection),
        classifier=RemoteClassifier(connection),
        models=partial(remote_models, connection),
        device=partial(remote_device, connection),
        stats=generator.stats,
    )


def _openai_inference(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.openai.embedder import OpenAIEmbedder
    from backends.openai.generator import OpenAITextGenerator
    from backends.openai.upstream import Upstream

    upstream = Upstream(entry.provider_id, OpenAISettings.model_validate(entry.config))
    return Provider(
        entry.api,
        entry.provider_id,
        entry.provider_type,
        generator=OpenAITextGenerator(upstream),
        embedder=OpenAIEmbedder(upstream),
        models=lambda _kind: list(upstream.models() or ()),
    )


def _lance_vectors(settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.lance.vectors import LanceVectorIndex

    index = LanceVectorIndex(settings.vectors_location, settings.vectors)
    return Provider(entry.api, entry.provider_id, entry.provider_type, vectors=index)


def _lance_rows(settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.lance.row_store import LanceRowStore

    rows = LanceRowStore(settings.rows_location)
    return Provider(entry.api, entry.provider_id, entry.provider_type, rows=rows)


def _memory_rows(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.memory.row_store import MemoryRowStore

    return Provider(entry.api, entry.provider_id, entry.provider_type, rows=MemoryRowStore())


def _memory_inference(settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.memory.classifier import MemoryClassifier
    from backends.memory.embedder import MemoryEmbedder
    from backends.memory.generator import MemoryTextGenerator

    return Provider(
        entry.api,
        entry.provider_id,
        entry.provider_type,
        generator=MemoryTextGenerator(settings=settings.engine),
        embedder=MemoryEmbedder(),
        classifier=MemoryClassifier(),
    )


def _memory_vectors(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.memory.vectors import MemoryVectorIndex

    return Provider(entry.api, entry.provider_id, entry.provider_type, vectors=MemoryVectorIndex())


def _memory_tools(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.memory.tools import MemoryToolRuntime

    runtime = MemoryToolRuntime()
    return Provider(entry.api, entry.provider_id, entry.provider_type, tools=lambda _retrieval: runtime)


def _rag_tools(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.rag.tools import RagToolRuntime

    return Provider(entry.api, entry.provider_id, entry.provider_type, tools=RagToolRuntime)


def _sql_telemetry(settings: BackendSettings, entry: ProviderSettings) -> Provider:
    """In the database of the state, with connections of its own: telemetry never waits for those of requests."""
    if settings.database == MEMORY_URL:
        return _memory_telemetry(settings, entry)
    from backends.store import SqlTelemetryStore, open_database

    store = SqlTelemetryStore(open_database(settings.database))
    return Provider(entry.api, entry.provider_id, entry.provider_type, telemetry=store)


def _memory_telemetry(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.memory.telemetry import MemoryTelemetryStore

    return Provider(entry.api, entry.provider_id, entry.provider_type, telemetry=MemoryTelemetryStore())


def _sql_agents(settings: BackendSettings, entry: ProviderSettings) -> Provider:
    """In the database of the state."""
    if settings.database == MEMORY_URL:
        return _memory_agents(settings, entry)
    from backends.store import SqlAgentStore, open_database

    store = SqlAgentStore(open_database(settings.database))
    return Provider(entry.api, entry.provider_id, entry.provider_type, agents=store)


def _memory_agents(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.memory.agents import MemoryAgentStore

    return Provider(entry.api, entry.provider_id, entry.provider_type, agents=MemoryAgentStore())


def _safety(entry: ProviderSettings, open_: Callable[[GuardModels], Safety]) -> Provider:
    return Provider(entry.api, entry.provider_id, entry.provider_type, safety=open_)


def _guardian(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    options = GuardianSettings.model_validate(entry.config)
    return _safety(entry, partial(GuardianSafety, options))


def _llama_guard(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    options = LlamaGuardSettings.model_validate(entry.config)
    return _safety(entry, partial(LlamaGuardSafety, options))


def _prompt_guard(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    options = PromptGuardSettings.model_validate(entry.config)
    return _safety(entry, partial(PromptGuardSafety, options))


def _code_scanner(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    options = CodeScannerSettings.model_validate(entry.config)
    return _safety(entry, partial(CodeScannerSafety, options))


def _memory_safety(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.memory.safety import MemorySafety

    return _safety(entry, lambda _models: MemorySafety())


def _registry(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    """Takes registrations of its kinds; what runs them is no part of a provider."""
    return Provider(entry.api, entry.provider_id, entry.provider_type)


def _braintrust(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.scoring.braintrust import BraintrustScoring

    scoring = BraintrustScoring(BraintrustSettings.model_validate(entry.config))
    return Provider(entry.api, entry.provider_id, entry.provider_type, scoring=scoring)


def _benchmark(settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.scoring.benchmark import BenchmarkScoring

    options = CodeScoringSettings.model_validate(entry.config)
    scoring = BenchmarkScoring(options, settings.home / "code-interpreter")
    return Provider(entry.api, entry.provider_id, entry.provider_type, scoring=scoring)


def _code_interpreter(settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.sandbox.runtime import CodeInterpreter

    options = CodeInterpreterSettings.model_validate(entry.config)
    runtime = CodeInterpreter(options, settings.home / "code-interpreter")
    return Provider(entry.api, entry.provider_id, entry.provider_type, tools=lambda _retrieval: runtime)


def _mcp_tools(settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.net import Outbound
    from backends.tools.mcp import McpToolRuntime

    runtime = McpToolRuntime(Outbound(settings.outbound), settings.outbound.timeout_s)
    return Provider(entry.api, entry.provider_id, entry.provider_type, tools=lambda _retrieval: runtime)


def _searching(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    options = SearchSettings.model_validate(entry.config)

    def open_(_retrieval: Retrieval) -> ToolRuntime:
        from backends.tools import search

        services = {
            "remote::brave-search": search.brave_search,
            "remote::tavily-search": search.tavily_search,
            "remote::wolfram-alpha": search.wolfram_alpha,
        }
        return services[entry.provider_type](options)

    return Provider(entry.api, entry.provider_id, entry.provider_type, tools=open_)


def _torch_training(settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.training.trainer import TorchTrainer

    options = TrainingSettings.model_validate(entry.config)
    trainer = TorchTrainer(options, settings.models, settings.home / "training")
    return Provider(entry.api, entry.provider_id, entry.provider_type, trainer=trainer)


def _memory_training(_settings: BackendSettings, entry: ProviderSettings) -> Provider:
    from backends.memory.trainer import MemoryTrainer

    return Provider(entry.api, entry.provider_id, entry.provider_type, trainer=MemoryTrainer())


FACTORIES: Mapping[tuple[ApiName, str], Factory] = {
    ("inference", "inline::onnx"): _onnx_inference,
    ("inference", "inline::memory"): _memory_inference,
    ("inference", "remote::openai"): _openai_inference,
    ("vector_io", "inline::lancedb"): _lance_vectors,
    ("vector_io", "inline::memory"): _memory_vectors,
    ("tool_runtime", "inline::rag-runtime"): _rag_tools,
    ("tool_runtime", "inline::code-interpreter"): _code_interpreter,
    ("tool_runtime", "inline::memory"): _memory_tools,
    ("tool_runtime", "remote::model-context-protocol"): _mcp_tools,
    ("tool_runtime", "remote::brave-search"): _searching,
    ("tool_runtime", "remote::tavily-search"): _searching,
    ("tool_runtime", "remote::wolfram-alpha"): _searching,
    ("agents", "inline::sql"): _sql_agents,
    ("agents", "inline::memory"): _memory_agents,
    ("telemetry", "inline::sql"): _sql_telemetry,
    ("telemetry", "inline::memory"): _memory_telemetry,
    ("safety", "inline::guardian"): _guardian,
    ("safety", "inline::llama-guard"): _llama_guard,
    ("safety", "inline::prompt-guard"): _prompt_guard,
    ("safety", "inline::code-scanner"): _code_scanner,
    ("safety", "inline::memory"): _memory_safety,
    ("scoring", "inline::basic"): _registry,
    ("scoring", "inline::llm-as-judge"): _registry,
    ("scoring", "inline::braintrust"): _braintrust,
    ("scoring", "inline::benchmark"): _benchmark,
    ("scoring", "inline::memory"): _registry,
    ("eval", "inline::memory"): _registry,
    ("eval", "inline::jobs"): _registry,
    ("post_training", "inline::torch"): _torch_training,
    ("post_training", "inline::memory"): _memory_training,
    ("datasetio", "inline::lancedb"): _lance_rows,
    ("datasetio", "inline::memory"): _memory_rows,
}

OPTIONS: Mapping[tuple[ApiName, str], type[Section]] = {
    ("inference", "inline::onnx"): EngineSettings,
    ("inference", "remote::openai"): OpenAISettings,
    ("safety", "inline::guardian"): GuardianSettings,
    ("safety", "inline::llama-guard"): LlamaGuardSettings,
    ("safety", "inline::prompt-guard"): PromptGuardSettings,
    ("safety", "inline::code-scanner"): CodeScannerSettings,
    ("scoring", "inline::braintrust"): BraintrustSettings,
    ("scoring", "inline::benchmark"): CodeScoringSettings,
    ("post_training", "inline::torch"): TrainingSettings,
    ("tool_runtime", "inline::code-interpreter"): CodeInterpreterSettings,
    ("tool_runtime", "remote::brave-search"): SearchSettings,
    ("tool_runtime", "remote::tavily-search"): SearchSettings,
    ("tool_runtime", "remote::wolfram-alpha"): SearchSettings,
}
"""What `config` of a provider may hold, by API and type; a type without an entry takes nothing."""
