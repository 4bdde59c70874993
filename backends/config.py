"""Settings of the backends. `server/settings.py` nests them below its own; each adapter gets only what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ApiName = Literal["inference", "vector_io", "safety", "datasetio", "scoring", "eval", "tool_runtime"]


MEMORY_URL = "memory://"
"""As `database_url`: state that lives in the process and ends with it."""


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
    """The inference engine."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where models run; `cuda` refuses to fall back.")
    threads: int = Field(0, ge=0, description="Threads of one ONNX Runtime session; 0 takes the number of cores.")
    slots: int = Field(16, ge=1, description="Sequences decoded together, per model.")
    max_context: int = Field(8192, ge=64, description="Tokens of KV cache per slot; the model's own limit if smaller.")
    prefill_chunk: int = Field(256, ge=16, description="Prompt tokens per run while nothing else decodes.")
    prefill_budget: int = Field(96, ge=16, description="Prompt tokens per step while other sequences decode.")
    queue: int = Field(256, ge=0, description="Requests that may wait for a slot; one more is answered with 429.")
    embed_batch_tokens: int = Field(256, ge=64, description="Padded tokens of one embedding run.")


class VectorSettings(Section):
    """The vector index."""

    index_rows: int = Field(5000, ge=256, description="Rows from which a table gets an approximate index.")
    maintenance_s: float = Field(5.0, gt=0, description="Seconds between looks for tables to index or compact.")


class BackendSettings(Section):
    """Where state lives and who provides which API."""

    data_dir: Path = Field(Path("~/.onnxstack"), description="Directory of everything the server keeps.")
    database_url: str = Field(
        "",
        description="`postgresql://user@host/db`, `sqlite:////path/state.db` or `memory://`; empty takes SQLite in the "
        "data directory.",
    )
    vector_url: str = Field("", description="LanceDB URL or directory; empty takes `lance` in the data directory.")
    models_dir: Path | None = Field(None, description="Model store; empty takes `models` in the data directory.")
    engine: EngineSettings = EngineSettings()
    vectors: VectorSettings = VectorSettings()
    providers: tuple[ProviderSettings, ...] = Field(
        (
            ProviderSettings(api="inference", provider_id="onnx", provider_type="inline::onnx"),
            ProviderSettings(api="vector_io", provider_id="lancedb", provider_type="inline::lancedb"),
        ),
        description="Who serves which API. A list given here replaces the default one as a whole.",
    )
    default_providers: dict[ApiName, str] = Field(
        default_factory=dict, description="Provider per API for requests that name none, where an API has several."
    )

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
