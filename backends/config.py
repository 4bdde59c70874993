"""Settings of the backends. `server/settings.py` nests them below its own; each adapter gets only what it needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

ApiName = Literal[
    "inference",
    "vector_io",
    "safety",
    "agents",
    "datasetio",
    "scoring",
    "eval",
    "post_training",
    "tool_runtime",
    "telemetry",
]


RetrievalMode = Literal["hybrid", "vector", "keyword"]
MEMORY_URL = "memory://"
"""As `database_url`: state that lives in the process and ends with it."""


ENGINE_TYPE = "inline::onnx"
"""The type of the inference providers that are engines of ours."""
_IPC_ADDRESS = re.compile(r"ipc:///.+")
_TCP_ADDRESS = re.compile(r"tcp://[^/\s]+:[1-9][0-9]{0,4}")
DEFAULT_SAFETY = "guardian"
"""The safety provider that is chosen where a request names none and the settings none either, if there is one."""
INPROC = "inproc"
"""As `engine.address`: the engine runs within each process that calls it."""


class Section(BaseModel):
    """A section of the settings: unknown keys are refused, values do not change after start."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProviderSettings(Section):
    """One provider: who serves an API, under which id, with which options."""

    api: ApiName = Field(description="The API it serves.")
    provider_id: str = Field(min_length=1, description="The id that resources name as their `provider_id`.")
    provider_type: str = Field(description="The technology: `inline::onnx`, `inline::lancedb`, `inline::memory`, ...")
    config: dict[str, Any] = Field(default_factory=dict, description="Options of that technology.")


class EngineSettings(Section):
    """The inference engine. `config` of a provider of type `inline::onnx` may have each of these for that provider."""

    address: str = Field(
        "",
        description="Where the engine is. Empty: a process of its own that the server starts; `ipc:///path` or "
        "`tcp://host:port`: one that somebody runs with `onnxstack engine`; `inproc`: within each worker.",
    )
    secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="What both ends of a `tcp://` address must know; it encrypts as well. Better given as `${env.X}`.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where models run; `cuda` refuses to fall back.")
    device_id: int = Field(0, ge=0, description="Which GPU, for `cuda`: one provider, and so one engine, for each.")
    threads: int = Field(0, ge=0, description="Threads of one ONNX Runtime session; 0 takes the number of cores.")
    slots: int = Field(16, ge=1, description="Sequences decoded together, per model.")
    max_context: int = Field(8192, ge=64, description="Tokens of KV cache per slot; the model's own limit if smaller.")
    prefill_chunk: int = Field(256, ge=16, description="Prompt tokens per run while nothing else decodes.")
    prefill_gap_ms: int = Field(
        100,
        ge=1,
        description="Milliseconds that a step may spend on prompts while other sequences decode; up to "
        "eight times as many while more wait than decode.",
    )
    prefix_cache_mb: int = Field(
        512, ge=0, description="Megabytes per model for the KV of prompts seen before; 0 reuses nothing. CPU only."
    )
    kv_bits: int = Field(
        0,
        description="Bits of each number in the KV cache: 8 for a quarter of the memory, with slower prefill and "
        "slightly other answers; 0 as the model computes, 32 or 16. CPU only.",
    )
    queue: int = Field(256, ge=0, description="Requests that may wait for a slot; one more is answered with 429.")
    prompt_lookup: bool = Field(
        False,
        description="Guess answers from what the conversation said before: faster where texts are repeated. Rounding "
        "differs from plain decoding, so greedy answers may too.",
    )
    memory_mb: int = Field(
        0, ge=0, description="Megabytes of model files kept loaded, least recently used given up; 0 for no limit."
    )
    keep_alive_s: float = Field(0.0, ge=0, description="Seconds after which an idle model is unloaded; 0 for never.")
    embed_batch_tokens: int = Field(256, ge=64, description="Padded tokens of one embedding run.")

    @field_validator("kv_bits")
    @classmethod
    def _eight_or_own(cls, bits: int) -> int:
        if bits in (0, 8):
            return bits
        raise ValueError("is 8, or 0 for what the model computes with")

    @field_validator("address")
    @classmethod
    def _one_of_the_forms(cls, address: str) -> str:
        if address in ("", INPROC) or _IPC_ADDRESS.fullmatch(address) or _TCP_ADDRESS.fullmatch(address):
            return address
        raise ValueError("is ipc:///absolute/path, tcp://host:port, inproc, or empty")


class VectorSettings(Section):
    """The vector index."""

    index_rows: int = Field(5000, ge=256, description="Rows from which a table gets an approximate index.")
    maintenance_s: float = Field(5.0, gt=0, description="Seconds between looks for tables to index or compact.")
    index_cache_mb: int = Field(
        2048, ge=16, description="Megabytes of indexes that each process keeps in memory, least recently used given up."
    )


class DocumentSettings(Section):
    """Documents that are read for retrieval and agents."""

    max_mb: int = Field(64, ge=1, description="Megabytes of one document.")
    max_pages: int = Field(2000, ge=1, description="Pages of one PDF.")
    max_characters: int = Field(20_000_000, ge=1000, description="Characters of the text of one document.")
    memory_mb: int = Field(1024, ge=128, description="Memory of the process that reads one PDF or HTML page.")
    timeout_s: float = Field(20.0, gt=0, le=600, description="Seconds that reading one PDF or HTML page may take.")


class RagSettings(Section):
    """Retrieval: the RAG tool."""

    mode: RetrievalMode = Field(
        "hybrid",
        description="How chunks are found where a query does not say: by meaning (`vector`), by words (`keyword`), or "
        "by both, fused.",
    )


class OutboundSettings(Section):
    """What clients may have this server open: URLs of documents, datasets and MCP servers."""

    allow: tuple[str, ...] = Field(
        (), description="`host:port` of hosts that are not public, or of other ports than 80 and 443; `host:*` for all."
    )
    roots: tuple[Path, ...] = Field((), description="Directories whose files `file://` URLs may name.")
    max_mb: int = Field(50, ge=1, description="Megabytes that one URL may hold.")
    timeout_s: float = Field(30.0, gt=0, description="Seconds that one URL may take.")

    @field_validator("allow")
    @classmethod
    def _host_and_port(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        for entry in allow:
            if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/@]+):(\*|[1-9][0-9]{0,4})", entry):
                raise ValueError(f"{entry!r} is not host:port")
        return allow


class DatasetSettings(Section):
    """The rows of datasets."""

    max_mb: int = Field(512, ge=1, description="Megabytes that the data behind a dataset's URL may have.")
    parse_s: float = Field(300.0, gt=0, description="Seconds that reading the data of one dataset may take.")
    parse_memory_mb: int = Field(
        4096, ge=512, description="Megabytes of address space that reading the data of one dataset may take."
    )
    answer_rows: int = Field(
        200_000,
        ge=1,
        description="Rows that one page may hold, also one of all rows; rows times functions of one scoring.",
    )
    storage: tuple[str, ...] = Field(
        (), description="Prefixes of object storage URLs that datasets may be read from, such as `s3://bucket/data/`."
    )
    lance_roots: tuple[Path, ...] = Field(
        (), description="Directories under which `lance://` tables may be read as datasets."
    )


class TelemetrySettings(Section):
    """Spans that the server records of its own work. What clients log is kept in any case."""

    enabled: bool = Field(True, description="Whether requests and what they do are recorded as traces.")
    capture_content: bool = Field(
        False, description="Whether spans hold prompts and answers. They may hold what users keep private."
    )
    ttl_s: int = Field(604_800, ge=1, le=3_153_600_000, description="Seconds that the server's own spans are kept.")
    queue: int = Field(
        8192, ge=64, description="Spans that may wait to be written; further ones are dropped and counted."
    )
    max_rows: int = Field(
        1_000_000, ge=1000, description="Spans that are kept, and log lines, and metrics; the oldest go first."
    )
    otlp_endpoint: str = Field(
        "",
        description="URL to which the server's own spans are sent as OTLP over HTTP too, such as "
        "`http://collector:4318/v1/traces`; empty sends nothing.",
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _http(cls, endpoint: str) -> str:
        if not endpoint or re.fullmatch(r"https?://[^/\s@]+(/\S*)?", endpoint):
            return endpoint
        raise ValueError("is a URL such as http://collector:4318/v1/traces, without user and password, or empty")


class AgentSettings(Section):
    """Agents and their sessions."""

    session_ttl_s: int = Field(
        86_400,
        ge=1,
        le=3_153_600_000,
        description="Seconds after its last turn for which a session is kept whose agent asks for no persistence.",
    )
    lease_s: float = Field(
        10.0,
        ge=1,
        description="Seconds after which a session is free again when the process that runs a turn in it has died.",
    )
    embedding_model: str = Field(
        "", description="Model that indexes documents given to turns; empty takes the default embedding model."
    )
    chunk_tokens: int = Field(512, ge=16, description="Tokens of a chunk of a document given to a turn.")


class SyntheticSettings(Section):
    """Synthetic data generation."""

    model: str = Field("HuggingFaceTB/SmolLM2-135M-Instruct", description="Model of requests that name none.")
    judge_model: str = Field(
        "", description="Registered model that rates candidates 1 to 10; empty scores by mean log-likelihood per token."
    )
    candidates: int = Field(4, ge=1, le=64, description="Candidates per prompt.")
    keep: int = Field(2, ge=1, description="Candidates per prompt that `top_k`, `top_k_top_p` and `random` keep.")
    top_p: float = Field(0.9, gt=0, le=1, description="Mass of the softmax of scores that `top_p` keeps.")
    temperature: float = Field(0.8, ge=0, description="Of the candidates; 0 makes all of a prompt the same.")
    max_tokens: int = Field(256, ge=1, description="Tokens of one candidate.")
    seed: int = Field(0, ge=0, description="Seed of candidates and filters: the same request gives the same rows.")


class JobSettings(Section):
    """Evaluations and fine-tunings, which outlive their request."""

    runner: Literal["process", "thread", "ray", "none"] = Field(
        "process",
        description="Who works on jobs: `process`, one process for each job, which the server starts and watches; "
        "`thread`, a thread of the worker; `ray`, the machines of a Ray cluster; `none`, other servers of the same "
        "database.",
    )
    ray_address: str = Field("", description="Of the Ray cluster, `host:port`; empty finds the one of this machine.")
    shared_directories: bool = Field(
        False, description="Whether every machine of the Ray cluster sees the directories of these settings."
    )
    evaluations: int = Field(2, ge=0, description="Evaluations that run at once, per server; 0 leaves them to others.")
    trainings: int = Field(1, ge=0, description="Fine-tunings that run at once, per server; 0 leaves them to others.")


class BackendSettings(Section):
    """Where state lives and who provides which API."""

    data_dir: Path = Field(Path("~/.onnxstack"), description="Directory of everything the server keeps.")
    database_url: str = Field(
        "",
        description="`postgresql://user@host/db`, `sqlite:////path/state.db` or `memory://`; empty takes SQLite in the "
        "data directory.",
    )
    vector_url: str = Field("", description="LanceDB URL or directory; empty takes `lance` in the data directory.")
    rows_url: str = Field(
        "", description="LanceDB URL or directory of dataset rows; empty takes `rows` in the data directory."
    )
    models_dir: Path | None = Field(None, description="Model store; empty takes `models` in the data directory.")
    engine: EngineSettings = EngineSettings()
    vectors: VectorSettings = VectorSettings()
    documents: DocumentSettings = DocumentSettings()
    rag: RagSettings = RagSettings()
    outbound: OutboundSettings = OutboundSettings()
    datasets: DatasetSettings = DatasetSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    agents: AgentSettings = AgentSettings()
    synthetic: SyntheticSettings = SyntheticSettings()
    jobs: JobSettings = JobSettings()
    providers: tuple[ProviderSettings, ...] = Field(
        (
            ProviderSettings(api="inference", provider_id="onnx", provider_type="inline::onnx"),
            ProviderSettings(api="vector_io", provider_id="lancedb", provider_type="inline::lancedb"),
            ProviderSettings(api="safety", provider_id="guardian", provider_type="inline::guardian"),
            ProviderSettings(api="safety", provider_id="llama-guard", provider_type="inline::llama-guard"),
            ProviderSettings(api="safety", provider_id="prompt-guard", provider_type="inline::prompt-guard"),
            ProviderSettings(api="safety", provider_id="code-scanner", provider_type="inline::code-scanner"),
            ProviderSettings(api="agents", provider_id="sql", provider_type="inline::sql"),
            ProviderSettings(api="tool_runtime", provider_id="rag-runtime", provider_type="inline::rag-runtime"),
            ProviderSettings(api="tool_runtime", provider_id="tavily-search", provider_type="remote::tavily-search"),
            ProviderSettings(api="tool_runtime", provider_id="brave-search", provider_type="remote::brave-search"),
            ProviderSettings(api="tool_runtime", provider_id="wolfram-alpha", provider_type="remote::wolfram-alpha"),
            ProviderSettings(
                api="tool_runtime",
                provider_id="model-context-protocol",
                provider_type="remote::model-context-protocol",
            ),
            ProviderSettings(api="scoring", provider_id="basic", provider_type="inline::basic"),
            ProviderSettings(api="scoring", provider_id="llm-as-judge", provider_type="inline::llm-as-judge"),
            ProviderSettings(api="scoring", provider_id="braintrust", provider_type="inline::braintrust"),
            ProviderSettings(api="scoring", provider_id="benchmark", provider_type="inline::benchmark"),
            ProviderSettings(
                api="tool_runtime", provider_id="code-interpreter", provider_type="inline::code-interpreter"
            ),
            ProviderSettings(api="eval", provider_id="jobs", provider_type="inline::jobs"),
            ProviderSettings(api="post_training", provider_id="torch", provider_type="inline::torch"),
            ProviderSettings(api="datasetio", provider_id="lancedb", provider_type="inline::lancedb"),
            ProviderSettings(api="telemetry", provider_id="sql", provider_type="inline::sql"),
        ),
        description="Who serves which API. A list given here replaces the default one as a whole.",
    )
    default_providers: dict[ApiName, str] = Field(
        default_factory=dict,
        description="Provider per API for requests that name none, where an API has several. Safety takes one "
        "called `guardian`.",
    )

    @property
    def chosen_providers(self) -> dict[ApiName, str]:
        """The provider per API that is in force for requests that name none."""
        if any((entry.api, entry.provider_id) == ("safety", DEFAULT_SAFETY) for entry in self.providers):
            return {"safety": DEFAULT_SAFETY, **self.default_providers}
        return self.default_providers

    @property
    def home(self) -> Path:
        """The data directory, absolute."""
        return self.data_dir.expanduser().absolute()

    @property
    def models(self) -> Path:
        """The model store's directory, absolute."""
        return self.models_dir.expanduser().absolute() if self.models_dir else self.home / "models"

    @property
    def database(self) -> str:
        """The database URL that is in force."""
        return self.database_url or f"sqlite:///{self.home / 'state.db'}"

    @property
    def vectors_location(self) -> str:
        """The LanceDB location that is in force."""
        return self.vector_url or str(self.home / "lance")

    @property
    def rows_location(self) -> str:
        """The LanceDB location of dataset rows that is in force."""
        return self.rows_url or str(self.home / "rows")
