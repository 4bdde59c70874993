"""The ports: what handlers may ask of the backends, as Protocols.

Each has an adapter per technology (`backends/<technology>/`) and a deterministic in-memory form (`backends/memory/`).
A port method takes the `CallContext` first and raises only classes of `backends/errors.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from backends.agents.records import Purpose, SessionFile, StoredAgent, StoredSession, StoredTurn
from backends.context import CallContext
from backends.datasets.columns import Column
from backends.datasets.filters import Filter
from backends.inference import (
    ClassifyRequest,
    ClassifyResult,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    GenerationEvent,
    ModelLimits,
    TokenizeRequest,
    TokenizeResult,
)
from backends.jobs.records import Job, JobKey, JobKind
from backends.telemetry.records import Record
from generated.models import (
    URL,
    AgentConfig,
    InterleavedContent,
    Message,
    QueryCondition,
    RAGDocument,
    RAGQueryConfig,
    RAGQueryResult,
    SafetyViolation,
    ScoringFnParams,
    Span,
    SpanWithStatus,
    Step,
    ToolDef,
    Trace,
    Turn,
)

if TYPE_CHECKING:
    from backends.jobs.running import RunningJob
    from backends.resources.models import Models
    from backends.training.plan import Plan

JsonObject = dict[str, Any]


@runtime_checkable
class Service(Protocol):
    """A part with a life of its own. Readiness is the list of what answers `ping`."""

    def ping(self) -> None:
        """Return quickly if the part can serve.

        Raises:
            Unavailable: with the reason.
        """

    def close(self) -> None:
        """Release everything held. Closing twice is closing once."""


class TextGenerator(Service, Protocol):
    """Continues texts and conversations, many at once."""

    def generate(self, context: CallContext, request: GenerateRequest) -> Iterator[GenerationEvent]:
        """Admit the request now, then yield its events: deltas in order and one `Finish` at the end.

        All checks happen before this returns, so that a refusal is a plain error and never half a stream. The work
        starts on return and goes on while the caller is not iterating. Closing the iterator or cancelling the context
        ends it within one decode step.

        Raises:
            UnknownReference: no such model at this provider. ContextLengthExceeded: prompt and max_tokens do not fit.
            Unsupported: a feature this generator refuses. Overloaded: the queue is full.
        """

    def limits(self, model: str) -> ModelLimits:
        """What may be asked of the model. Raises UnknownReference."""


class Embedder(Service, Protocol):
    """Turns texts into unit vectors."""

    def embed(self, context: CallContext, request: EmbedRequest) -> EmbedResult:
        """One vector per text, in order. Raises UnknownReference, Overloaded."""

    def tokenize(self, context: CallContext, request: TokenizeRequest) -> TokenizeResult:
        """Where the tokens of each text lie, in order, for cutting texts and counting them.

        Raises UnknownReference, BadRequest: half of a surrogate pair.
        """

    def limits(self, model: str) -> ModelLimits:
        """What may be asked of the model. Raises UnknownReference."""


class Classifier(Service, Protocol):
    """Scores texts against a fixed set of labels."""

    def classify(self, context: CallContext, request: ClassifyRequest) -> ClassifyResult:
        """One row of probabilities per text, in order; without a text, whether there is such a model.

        Raises UnknownReference, BadRequest, Overloaded.
        """


@dataclass(frozen=True, slots=True)
class VectorChunk:
    """One chunk as stored. `content`: the contract's InterleavedContent as JSON value; `metadata`: free JSON.

    document_id: the chunk's document, "" when it has none. expires_at: None for no expiry.
    """

    content: Any
    metadata: JsonObject
    document_id: str = ""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A chunk found. `score`: cosine similarity, -1..1, of a search by vector; BM25, above 0, of one by words.

    Higher is nearer. BM25 scores compare chunks for one text, and say nothing by themselves.
    """

    chunk: VectorChunk
    score: float


class VectorIndex(Service, Protocol):
    """Stores chunks with their vectors and finds the nearest. `table`: the storage name that SQL gave the vector db."""

    def create(self, context: CallContext, table: str, dimension: int) -> None:
        """Make an empty table. Making one that exists with the same dimension changes nothing. Raises Conflict."""

    def drop(self, context: CallContext, table: str) -> None:
        """Remove the table and its data. Dropping one that is not there changes nothing."""

    def insert(
        self, context: CallContext, table: str, chunks: Sequence[VectorChunk], vectors: NDArray[np.float32]
    ) -> None:
        """Append chunks with their unit vectors, float32 [chunks, dimension]; durable and searchable on return.

        Raises:
            BadRequest: the dimension is not the table's. NotFound: no such table. StorageFull.
        """

    def replace(
        self,
        context: CallContext,
        table: str,
        document_ids: Sequence[str],
        chunks: Sequence[VectorChunk],
        vectors: NDArray[np.float32],
    ) -> None:
        """Let the documents of these ids be exactly these chunks, in one step that no reader sees half of.

        No chunks: remove the documents. chunks: each of one of the documents. Durable and searchable on return; of
        several writers of one document the last one wins as a whole.

        Raises:
            BadRequest: as `insert`, or a chunk of another document. NotFound: no such table. StorageFull.
        """

    def query(
        self,
        context: CallContext,
        table: str,
        vector: NDArray[np.float32],
        *,
        max_chunks: int,
        score_threshold: float | None = None,
    ) -> list[ScoredChunk]:
        """The nearest chunks that are not expired, best first, all with `score >= score_threshold`.

        vector: float32 [dimension], unit length. Raises BadRequest, NotFound.
        """

    def match(self, context: CallContext, table: str, text: str, *, max_chunks: int) -> list[ScoredChunk]:
        """The chunks that are not expired and have words of the text, by BM25, best first.

        text: plain words, no query language. Raises BadRequest, NotFound.
        """

    def count(self, context: CallContext, table: str) -> int:
        """Number of chunks that are not expired. Raises NotFound."""


class RowStore(Service, Protocol):
    """Keeps the rows of datasets in tables. `table`: the storage name that SQL gave the dataset.

    Rows are JSON objects with exactly the members that `columns` names, and come back equal and in order: those of
    `create`, then those of each `append` together.
    """

    def create(self, context: CallContext, table: str, columns: Sequence[Column], rows: Iterable[JsonObject]) -> None:
        """Make a table of the rows, which are taken one by one; all or nothing, durable on return.

        Raises what taking the rows raises, StorageFull.
        """

    def drop(self, context: CallContext, table: str) -> None:
        """Remove the table and its rows. Dropping one that is not there changes nothing."""

    def append(self, context: CallContext, table: str, columns: Sequence[Column], rows: Sequence[JsonObject]) -> None:
        """Add the rows at the end, all or nothing, durable on return; of any number of writers none loses any.

        Raises NotFound: no such table. StorageFull.
        """

    def scan(
        self,
        context: CallContext,
        table: str,
        columns: Sequence[Column],
        *,
        start: int = 0,
        limit: int | None = None,
        condition: Filter | None = None,
    ) -> Iterator[JsonObject]:
        """The rows that meet the condition, from the one numbered `start` on, at most `limit`; in bounded memory.

        Raises NotFound: no such table, or it is dropped meanwhile.
        """

    def count(self, context: CallContext, table: str) -> int:
        """Number of rows. Raises NotFound."""

    def filling(self, table: str) -> AbstractContextManager[object]:
        """Held by at most one thread of one process of this machine at a time, for each name. Waits for it."""


ResourceKind = Literal["model", "shield", "vector_db", "dataset", "scoring_function", "eval_task", "tool_group", "tool"]


@dataclass(frozen=True, slots=True)
class Resource:
    """One registered object.

    body: the members of the contract's object beside identifier, provider_id, provider_resource_id and type, as JSON.
    storage_name: name of the data that belongs to it in another store (`vector_db_<uuid>`), "" when it has none.
    """

    kind: ResourceKind
    identifier: str
    provider_id: str
    provider_resource_id: str
    body: JsonObject = field(default_factory=dict)
    storage_name: str = ""


ResourceKey = tuple[ResourceKind, str]
Expectation = Mapping[ResourceKey, Resource | None]


class ResourceStore(Service, Protocol):
    """The registry's rows: durable on return, seen at once by every process that shares the store.

    A caller reads its own rows and the shared ones (owner ""), its own first where both have the id; `own`: only its
    own. It writes and removes only its own. Data in other stores is named by at most one row; names that no row has are
    remembered until that data is gone, so that a kill between two stores leaves nothing behind for ever.
    """

    def put(
        self,
        context: CallContext,
        *resources: Resource,
        remove: Sequence[ResourceKey] = (),
        expect: Expectation | None = None,
    ) -> None:
        """Insert or replace the resources and remove the named ones, all or nothing.

        A replaced resource keeps its place in `list`. `expect`: what `get` with `own` must still answer for these keys.

        Raises:
            Conflict: an expectation does not hold, or a new `storage_name` is not reserved; nothing has changed.
            Unavailable, StorageFull.
        """

    def get(self, context: CallContext, kind: ResourceKind, identifier: str, *, own: bool = False) -> Resource | None:
        """The resource, or None."""

    def list(self, context: CallContext, kind: ResourceKind, *, own: bool = False) -> list[Resource]:
        """All resources of the kind in the order of their first registration."""

    def reserve(self, context: CallContext, storage_name: str) -> None:
        """Announce data that is about to be made, before making it; a `put` within the hour gives it to a resource."""

    def unclaimed(self) -> Sequence[str]:
        """Storage names whose data may be deleted: no row has them any more, or a reservation ran out."""

    def forget(self, storage_name: str) -> None:
        """The data of an unclaimed storage name has been deleted."""


@dataclass(frozen=True, slots=True)
class ToolFile:
    """A file that a tool is given or makes. name: without folders."""

    name: str
    data: bytes
    mime_type: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered. A tool that failed has an `error_message`, and its `content` tells a model what happened.

    error_code: of the tool's own numbering, None without an error. files: what it made beside its answer.
    """

    content: InterleavedContent
    error_message: str | None = None
    error_code: int | None = None
    files: tuple[ToolFile, ...] = ()


class ToolRuntime(Protocol):
    """A provider of tools: what a tool group offers, and running it. Many threads may call one at a time."""

    def list_tools(self, context: CallContext, toolgroup_id: str, endpoint: URL | None) -> list[ToolDef]:
        """The tools behind a group, or behind an MCP endpoint.

        Raises:
            BadRequest: no group this provider knows, or an endpoint that does not answer as one. Forbidden: an endpoint
            that the settings do not allow. Unsupported: this machine lacks what the tools need, by name.
        """

    def invoke(
        self, context: CallContext, tool: Resource, group: Resource, arguments: JsonObject, files: Sequence[ToolFile]
    ) -> ToolResult:
        """Run a registered tool. What goes wrong while it runs is a result with an error, which a model can read.

        arguments: those of the call over those of the group. files: what the caller gives the tool to work on; a tool
        that takes none ignores them.

        Raises:
            BadRequest: arguments that the tool cannot take, by name. Cancelled, DeadlineExceeded.
        """


class Retrieval(Protocol):
    """Documents into vector dbs, and what of them bears on a question: what the tools of `builtin::rag` run on."""

    def insert(
        self,
        context: CallContext,
        vector_db_id: str,
        documents: Sequence[RAGDocument],
        *,
        chunk_size_in_tokens: int,
        where: str = "/documents",
    ) -> None:
        """Cut the documents into chunks and index them; a document id that is there already is replaced.

        where: JSON pointer of the documents, for errors.

        Raises:
            UnknownReference: no such vector db. BadRequest: a document that cannot be read, by its place. Forbidden: a
            URL that the settings do not allow. PayloadTooLarge.
        """

    def query(
        self,
        context: CallContext,
        content: InterleavedContent,
        vector_db_ids: Sequence[str],
        config: RAGQueryConfig | None = None,
        *,
        where: str = "",
    ) -> RAGQueryResult:
        """What the vector dbs hold about `content`, within the token budget; no content where they hold nothing.

        where: JSON pointer of the object that has these arguments, for errors.

        Raises:
            UnknownReference: no such vector db or model. BadRequest: a template that cannot be rendered.
        """


class TelemetryStore(Service, Protocol):
    """Keeps spans, log lines and metrics until they expire, and finds spans again.

    Seen at once by every process that shares the store. A caller reads what has its owner and nothing else.
    """

    def write(self, records: Sequence[Record]) -> None:
        """Keep the records, all or nothing; durable on return. Parts of one span, in any order, become one span.

        records: some hundreds at most, for they are one transaction.

        Raises:
            Unavailable, StorageFull.
        """

    def traces(
        self,
        context: CallContext,
        filters: Sequence[QueryCondition],
        order: Sequence[tuple[str, bool]],
        limit: int,
        offset: int,
    ) -> list[Trace]:
        """Traces with a span that meets all filters, newest first unless `order` says otherwise.

        order: (member of Trace, whether descending), the first counts most; what is not known comes last.
        """

    def trace(self, context: CallContext, trace_id: str) -> Trace | None:
        """The trace, or None."""

    def span(self, context: CallContext, trace_id: str, span_id: str) -> Span | None:
        """The span, or None."""

    def tree(
        self, context: CallContext, span_id: str, attributes: Sequence[str] | None, max_depth: int | None
    ) -> dict[str, SpanWithStatus]:
        """The span and what is under it, by depth and start; empty for an unknown span.

        attributes: those to return, null where a span has none of the name; None for all.
        """

    def spans(
        self,
        context: CallContext,
        filters: Sequence[QueryCondition],
        attributes: Sequence[str],
        max_depth: int | None,
    ) -> list[Span]:
        """The spans that have all `attributes`, of the traces with a span that meets all filters, newest trace first.

        attributes: also what is returned of each; empty for every span with all that it has.
        """

    def sweep(self, max_rows: int) -> int:
        """Remove what has expired, and the oldest of each kind beyond about `max_rows`; how many rows that were."""


class JobStore(Service, Protocol):
    """The table of jobs: durable on return, shared by processes, who claim jobs and lose them when they fall silent.

    A claim is held by a claimant, a name that is never used twice. What a claimant writes is refused once it has lost
    the job, so that two runners never work on one job with effect. No clock is compared between processes: a runner
    takes over what has shown no new heartbeat while the runner itself watched.
    """

    def add(self, context: CallContext, job: Job) -> Job:
        """Schedule it; the same id, kind, subject and request again is the job that is there.

        Raises:
            Conflict: the id belongs to another request.
        """

    def get(self, context: CallContext, kind: JobKind, job_id: str) -> Job | None:
        """The job, or None."""

    def list(self, context: CallContext, kind: JobKind) -> list[Job]:
        """All jobs of the kind, oldest first."""

    def cancel(self, context: CallContext, kind: JobKind, job_id: str) -> Job | None:
        """Let it end as failed: at once when nobody works on it, else as soon as its runner sees the wish.

        A job that has ended stays as it is. None: no such job.
        """

    def claim(self, claimant: str, kinds: Sequence[JobKind], silent: Mapping[JobKey, int]) -> Job | None:
        """Take the oldest job that nobody holds, or that is one of `silent` and has no more heartbeats than given."""

    def heartbeats(self, kinds: Sequence[JobKind]) -> dict[JobKey, int]:
        """Jobs that somebody holds, with their number of heartbeats so far."""

    def claimed(self, claimant: str) -> Job | None:
        """The job that the claimant holds, or None: it has lost it."""

    def beat(self, claimant: str) -> Job | None:
        """Show that the claimant lives; the job as it is, or None when it is lost."""

    def progress(self, claimant: str, progress: JsonObject) -> None:
        """What the job says of itself. Raises Conflict: it is lost."""

    def save_part(self, claimant: str, part: int, body: JsonObject) -> None:
        """Keep a piece of the result, from which a later attempt goes on; again replaces it. Raises Conflict."""

    def parts(self, key: JobKey) -> Iterator[JsonObject]:
        """The pieces in their order, read a few at a time."""

    def finish(self, claimant: str, *, result: JsonObject | None = None, reason: str = "") -> bool:
        """End the job: completed with a result, else failed for the reason. False: it was lost before."""

    def release(self, claimant: str, *, counts: bool = True) -> None:
        """Give the job back for another attempt; one whose end its client wished for has failed then.

        counts: whether the attempt that ends counts as one.
        """


@dataclass(frozen=True, slots=True)
class TrainedEpoch:
    """What an epoch has made. model: the provider's name of the trained model; path: where its files are.

    train_loss, validation_loss: nats per token; validation_loss, perplexity: None without validation data.
    """

    epoch: int
    model: str
    path: str
    train_loss: float
    validation_loss: float | None = None
    perplexity: float | None = None


class ModelTrainer(Protocol):
    """Fine-tunes models of an inference provider."""

    def check(self, plan: Plan, model: str) -> None:
        """Return if the plan can be carried out on the provider's model of this name.

        Raises:
            Unsupported: the model, or what is missing here. BadRequest, Forbidden: of the plan.
        """

    def train(
        self,
        job: RunningJob,
        plan: Plan,
        model: str,
        rows: Sequence[JsonObject],
        validation: Sequence[JsonObject],
        done: int,
    ) -> Iterator[TrainedEpoch]:
        """Train on the rows; each epoch's model can be served when it is yielded.

        done: epochs that an earlier attempt has yielded already.

        Raises:
            BadRequest: a row that cannot be learnt. StorageFull. Cancelled, and what `check` raises.
        """

    def forget(self, job: Job) -> None:
        """Drop what a later attempt at the job would go on from; what was yielded stays."""


class RowScorer(Protocol):
    """One scoring function, opened for one call."""

    def score(self, context: CallContext, rows: Iterable[JsonObject], *, where: str) -> Iterator[JsonObject]:
        """One result for each row, in order, with `score` and what else the function says; rows are taken lazily.

        where: JSON pointer of the rows, for errors. Raises BadRequest: a column is missing or of another type.
        """


class RowScoring(Protocol):
    """A provider of scoring functions."""

    def open(
        self, context: CallContext, models: Models, function: str, given: ScoringFnParams | None, *, where: str
    ) -> RowScorer:
        """The function of this name, ready to score; all checks that need no row come before this returns.

        given: params of the call. where: JSON pointer of the function in the request.

        Raises:
            BadRequest: no such function, or wrong params. UnknownReference: its model is not registered.
            Unsupported: what it needs is not installed.
        """


class GuardModels(Protocol):
    """The models that shields judge with."""

    def generator(self, context: CallContext, model_id: str, *, where: str) -> tuple[TextGenerator, str]:
        """What runs a registered LLM, and the provider's name of it. Raises UnknownReference, BadRequest."""

    def classifier(self) -> Classifier:
        """What runs classifiers. Raises NoProvider: no inference provider does."""


class Safety(Protocol):
    """A provider of shields: judges messages. Many threads may run the shields of one at a time."""

    def check(self, context: CallContext, shield: Resource) -> None:
        """Return if the shield, which is about to be registered, can be run.

        Raises:
            BadRequest: its `params` are wrong. UnknownReference: its model is not there.
        """

    def run(
        self, context: CallContext, shield: Resource, messages: Sequence[Message], params: JsonObject
    ) -> SafetyViolation | None:
        """Judge a conversation, at least one message; None where there is nothing to object to.

        params: options of this run over those of the shield. What cannot be judged is an error, never harmless.

        Raises:
            BadRequest: wrong `params`, or messages that the kind of shield cannot judge. UnknownReference: its model
            is gone. Unsupported: an image. PayloadTooLarge, Overloaded, Unavailable.
        """


class AgentStore(Service, Protocol):
    """Keeps agents, their sessions, the turns of these and the files that they work on.

    Durable on return and seen at once by every process that shares the store. A caller reads its own rows and the
    shared ones (owner ""), and changes only its own; what it may not read is not there. Sessions that have expired are
    not there either.

    One turn at a time runs in a session: it holds the session by a lease, which `renew` extends and `finish_turn` and
    `abandon_turn` give back. A turn that lost its lease without a result reads as failed, with `INTERRUPTED`.
    """

    def create_agent(self, context: CallContext, agent_id: str, config: AgentConfig) -> None:
        """Keep a new agent. Raises Unavailable, StorageFull."""

    def agent(self, context: CallContext, agent_id: str) -> StoredAgent | None:
        """The agent, or None."""

    def delete_agent(self, context: CallContext, agent_id: str) -> bool:
        """Remove the agent with its sessions, turns and files; False if it was not there."""

    def sessions(self, context: CallContext, agent_id: str) -> Sequence[StoredSession]:
        """All sessions of one's own agent, whoever's they are and also those that have expired."""

    def create_session(self, context: CallContext, session: StoredSession) -> None:
        """Keep a new session. Raises NotFound: its agent is gone."""

    def session(self, context: CallContext, session_id: str) -> StoredSession | None:
        """The session, or None."""

    def delete_session(self, context: CallContext, session_id: str) -> bool:
        """Remove the session, expired or not, with its turns and files; False if it was not there."""

    def expired(self, limit: int) -> Sequence[StoredSession]:
        """Up to `limit` sessions that have expired and that no turn holds, of any owner."""

    def begin_turn(self, context: CallContext, turn: Turn, *, lease_s: float, expires_at: datetime | None) -> None:
        """Take the session of the turn and keep the turn as one that runs. expires_at: of the session from now on.

        Raises:
            NotFound: no such session. SessionBusy: another turn holds it.
        """

    def add_step(self, context: CallContext, turn: Turn, step: Step) -> None:
        """Keep a further step of a turn that runs. Raises Conflict: the turn no longer holds its session."""

    def finish_turn(self, context: CallContext, stored: StoredTurn, steps: Sequence[Step] = ()) -> None:
        """Keep the turn as it ended and the further `steps` of it, and give the session back.

        The steps of `stored.turn` are not looked at: `add_step` has kept those before.

        Raises:
            Conflict: the turn no longer holds its session; nothing has changed.
        """

    def abandon_turn(self, context: CallContext, turn: Turn) -> None:
        """Forget a turn that never began, and give the session back."""

    def renew(self, turn_ids: Sequence[str], lease_s: float) -> set[str]:
        """Extend the leases of turns that run; which of them still hold their session."""

    def turns(self, context: CallContext, session_id: str) -> Sequence[StoredTurn]:
        """All turns of a session with their steps, in order."""

    def put_files(self, context: CallContext, session_id: str, files: Sequence[SessionFile]) -> None:
        """Keep files of a session; one replaces that of its name and purpose. Raises NotFound: the session is gone."""

    def files(self, context: CallContext, session_id: str) -> Sequence[SessionFile]:
        """All files of the session of purpose `file`, in the order in which they came."""

    def digests(self, context: CallContext, session_id: str, purpose: Purpose) -> dict[str, str]:
        """The names of what the session keeps for a purpose, by digest."""
