"""Settings of the backends. `server/settings.py` nests them below its own; each adapter gets only what it needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

ApiName = Literal["inference", "vector_io", "safety", "datasetio", "scoring", "eval", "tool_runtime", "telemetry"]


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


class DatasetSettings(Section):
    """The rows of datasets."""

    max_mb: int = Field(512, ge=1, description="Megabytes that the data behind a dataset's URL may have.")
    parse_s: float = Field(300.0, gt=0, description="Seconds that reading the data of one dataset may take.")
    parse_memory_mb: int = Field(
        4096, ge=512, description="Megabytes of address space that reading the data of one dataset may take."
    )
    answer_rows: int = Field(200_000, ge=1, description="Rows that one page may hold, also one of all rows.")
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
    datasets: DatasetSettings = DatasetSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    providers: tuple[ProviderSettings, ...] = Field(
        (
            ProviderSettings(api="inference", provider_id="onnx", provider_type="inline::onnx"),
            ProviderSettings(api="vector_io", provider_id="lancedb", provider_type="inline::lancedb"),
            ProviderSettings(api="safety", provider_id="guardian", provider_type="inline::guardian"),
            ProviderSettings(api="safety", provider_id="llama-guard", provider_type="inline::llama-guard"),
            ProviderSettings(api="safety", provider_id="prompt-guard", provider_type="inline::prompt-guard"),
            ProviderSettings(api="safety", provider_id="code-scanner", provider_type="inline::code-scanner"),
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
