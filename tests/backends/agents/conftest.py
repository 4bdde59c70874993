"""Agents on in-memory providers, talked to as handlers do.

The model repeats the last message, and what reads as a call of a tool becomes one: a turn does what its message says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backends.agents.service import Agents
from backends.config import AgentSettings, OutboundSettings, ProviderSettings
from backends.context import CallContext
from backends.documents import Documents
from backends.inference import Finish, GenerateRequest, GenerationEvent, ModelLimits, TextDelta
from backends.memory.agents import MemoryAgentStore
from backends.memory.embedder import MemoryEmbedder
from backends.memory.tools import MemoryToolRuntime, Run
from backends.net import Outbound
from backends.ports import AgentStore, ToolResult
from backends.providers import APIS, FACTORIES, Provider
from backends.stack import Backends, open_backends
from generated import models as m
from tests.backends.resources.conftest import settings_of
from tests.backends.store.conftest import Clock

Event = m.AgentTurnResponseStreamChunk


def call_of(name: str, **arguments: object) -> str:
    """What the model says to call a tool."""
    return f"<function={name}>{json.dumps(arguments)}</function>"


def described(events: Sequence[Event]) -> list[str]:
    """The events in short: `step_start inference`; those of progress each once in a row."""
    lines: list[str] = []
    for event in events:
        payload = event.event.payload
        line = " ".join(filter(None, (payload.event_type, getattr(payload, "step_type", ""))))
        if not (line.startswith("step_progress") and lines and lines[-1] == line):
            lines.append(line)
    return lines


@dataclass
class ScriptedRetrieval:
    """Retrieval that answers what it is told to, and remembers what it was asked."""

    answer: str = ""
    inserted: list[tuple[str, m.RAGDocument]] = field(default_factory=list)
    asked: list[tuple[m.InterleavedContent, tuple[str, ...]]] = field(default_factory=list)

    def insert(
        self,
        context: CallContext,
        vector_db_id: str,
        documents: Sequence[m.RAGDocument],
        *,
        chunk_size_in_tokens: int,
        where: str = "/documents",
    ) -> None:
        self.inserted += [(vector_db_id, document) for document in documents]

    def query(
        self,
        context: CallContext,
        content: m.InterleavedContent,
        vector_db_ids: Sequence[str],
        config: m.RAGQueryConfig | None = None,
    ) -> m.RAGQueryResult:
        self.asked.append((content, tuple(vector_db_ids)))
        return m.RAGQueryResult(content=[m.TextContentItem(text=self.answer)] if self.answer else None)


@dataclass
class Desk:
    """Agents and all that a test wants to look at."""

    backends: Backends
    agents: Agents
    retrieval: ScriptedRetrieval
    context: CallContext
    tools: MemoryToolRuntime

    def group(self, name: str, runs: Mapping[str, Run]) -> str:
        """Register a tool group whose tools run as given."""
        definitions = [m.ToolDef(name=tool, description=f"Runs {tool}.", parameters=[], metadata={}) for tool in runs]
        self.tools.put(name, definitions, runs)
        self.backends.tool_groups.register(
            self.context, m.RegisterToolGroupRequest(toolgroup_id=name, provider_id="memory")
        )
        return name

    def agent(self, **config: Any) -> str:
        """Create an agent; what is not given is plain."""
        plain = {"model": "llm", "instructions": "Be kind.", "enable_session_persistence": True}
        return self.agents.create(self.context, m.AgentConfig.model_validate({**plain, **config}))

    def session(self, **config: Any) -> tuple[str, str]:
        """A new agent and a session with it."""
        agent_id = self.agent(**config)
        return agent_id, self.agents.create_session(self.context, agent_id, "talk")

    def events(
        self,
        where: tuple[str, str],
        *messages: str | m.TurnInputMessage,
        context: CallContext | None = None,
        **more: Any,
    ) -> Iterator[Event]:
        """The events of a turn with these messages, texts being a user's."""
        said = [m.UserMessage(content=text) if isinstance(text, str) else text for text in messages]
        request = m.CreateAgentTurnRequest.model_validate({"messages": [s.model_dump() for s in said], **more})
        return self.agents.run_turn(context or self.context, *where, request)

    def turn(self, where: tuple[str, str], *messages: str | m.TurnInputMessage, **more: Any) -> m.Turn:
        """The turn when it has ended."""
        *_, last = self.events(where, *messages, **more)
        payload = last.event.payload
        assert isinstance(payload, m.AgentTurnResponseTurnCompletePayload)
        return payload.turn

    def read(self, where: tuple[str, str]) -> list[m.Turn]:
        """The turns of a session as they are kept."""
        return self.agents.session(self.context, *where).turns

    @property
    def store(self) -> AgentStore:
        return self.backends.providers.agents()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Backends]:
    """In-memory providers, but for agents: these are in SQLite."""
    settings = settings_of(tmp_path, apis=tuple(api for api in APIS if api != "agents"))
    agents = ProviderSettings(api="agents", provider_id="sql", provider_type="inline::sql")
    backends = open_backends(settings.model_copy(update={"providers": (*settings.providers, agents)}))
    yield backends
    backends.close()


def desk_of(
    backends: Backends, context: CallContext, now: Callable[[], datetime] = lambda: datetime.now(UTC), **settings: Any
) -> Desk:
    """Agents as the stack opens them, but for retrieval."""
    backends.models.register(context, m.RegisterModelRequest(model_id="llm"))
    backends.tool_groups.register(
        context, m.RegisterToolGroupRequest(toolgroup_id="builtin::memory", provider_id="memory")
    )
    backends.shields.register(context, m.RegisterShieldRequest(shield_id="guard"))
    retrieval = ScriptedRetrieval()
    agents = Agents(
        backends.providers,
        backends.models,
        backends.shields,
        backends.tool_groups,
        backends.vector_dbs,
        retrieval,
        Documents(Outbound(OutboundSettings())),
        backends.tracing,
        AgentSettings(embedding_model="embed", **settings),
        now,
    )
    opened = backends.providers.resolve("tool_runtime", "memory").tools
    assert opened is not None
    runtime = opened(retrieval)
    assert isinstance(runtime, MemoryToolRuntime)
    return Desk(backends, agents, retrieval, context, runtime)


@pytest.fixture
def desk(opened: Backends, context: CallContext) -> Iterator[Desk]:
    """Agents over in-memory providers."""
    desk = desk_of(opened, context)
    yield desk
    desk.agents.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(tmp_path: Path, context: CallContext, clock: Clock) -> Iterator[Desk]:
    """Agents with a clock that the test turns, whose sessions live for ten seconds."""
    made = Provider("agents", "memory", "inline::memory", agents=MemoryAgentStore(clock))
    factories = {**FACTORIES, ("agents", "inline::memory"): lambda *_: made}
    backends = open_backends(settings_of(tmp_path, "memory://"), factories=factories)
    desk = desk_of(backends, context, clock, session_ttl_s=10)
    yield desk
    desk.agents.close()
    backends.close()


@dataclass
class Script:
    """A TextGenerator that answers with the scripted events in turn, and "Fine." after the last; an error is raised."""

    answers: list[Sequence[GenerationEvent | Exception]] = field(default_factory=list)
    requests: list[GenerateRequest] = field(default_factory=list)

    def generate(self, context: CallContext, request: GenerateRequest) -> Iterator[GenerationEvent]:
        context.check()
        self.requests.append(request)
        return self._said(self.answers.pop(0) if self.answers else (TextDelta("Fine."),))

    def limits(self, model: str) -> ModelLimits:
        return ModelLimits(0)

    def ping(self) -> None:
        return

    def close(self) -> None:
        return

    def _said(self, answer: Sequence[GenerationEvent | Exception]) -> Iterator[GenerationEvent]:
        for event in (*answer, Finish("end_of_turn", 1, 1)):
            if isinstance(event, Exception):
                raise event
            yield event


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def scripted(tmp_path: Path, context: CallContext, script: Script) -> Iterator[Desk]:
    """Agents whose model says what the script says."""
    settings = settings_of(tmp_path, "memory://")
    made = Provider("inference", "memory", "inline::memory", generator=script, embedder=MemoryEmbedder())
    backends = open_backends(settings, factories={**FACTORIES, ("inference", "inline::memory"): lambda *_: made})
    desk = desk_of(backends, context)
    yield desk
    desk.agents.close()
    backends.close()


@pytest.fixture
def answers() -> Callable[[str], Run]:
    """A tool that answers with a fixed text."""
    return lambda text: lambda _arguments, _files: ToolResult(text)
