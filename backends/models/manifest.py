"""The manifest: what a stored model is, where it came from and what its files must hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backends.errors import CorruptModel

MANIFEST_FILE = "manifest.json"

ModelKind = Literal["llm", "embedding", "classifier"]
Precision = Literal["int8", "int4", "fp16", "fp32"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSource(_Record):
    """Where the weights came from.

    name: package name, file name or name on the hub; never a directory of this machine. version: of the package, commit
    of the hub, "" for local files. sha256: of the fetched archive or file; of the sorted `<sha256>  <path>` lines for a
    folder; of the line `<commit>  <name>` for the hub, whose commit stands for every file; of the base model's weights
    for a training, whose name is `<base> by <job>` and whose version is its epoch.
    """

    kind: Literal["package", "gguf", "folder", "hub", "adapter", "training"]
    name: str
    version: str = ""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ModelBase(_Record):
    """The model that an adapter changes. source: where its weights came from when the adapter was installed."""

    name: str
    source: ModelSource


class ModelFile(_Record):
    """One file of a model. size: bytes."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class ModelMetadata(_Record):
    """What a caller must know before loading.

    context_length: longest sequence in tokens (in words for a classifier of n-grams, which goes through a longer text
    window by window). embedding_dimension: size of a vector, None where there is none. kv_bytes_per_token: bytes of KV
    cache per token and sequence, None for an encoder. converter: who wrote the graph.
    """

    architecture: str
    context_length: int = Field(gt=0)
    embedding_dimension: int | None = None
    kv_bytes_per_token: int | None = None
    converter: str = ""


class Manifest(_Record):
    """A stored model.

    defaults: sampling values to use where a request gives none (`{"repetition_penalty": 1.1}`). base: of an adapter.
    """

    schema_version: Literal[1] = 1
    name: str
    kind: ModelKind
    source: ModelSource
    licence: str
    precision: Precision
    created_at: datetime
    files: dict[str, ModelFile]
    defaults: dict[str, float] = Field(default_factory=dict)
    metadata: ModelMetadata
    base: ModelBase | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """The manifest of a model directory. Raises FileNotFoundError, CorruptModel."""
        text = (directory / MANIFEST_FILE).read_bytes()
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = "/".join(str(part) for part in first["loc"]) or "document"
            raise CorruptModel(MANIFEST_FILE, f"{place}: {first['msg']}") from error

    def to_json(self) -> str:
        """The text that `read` takes."""
        return self.model_dump_json(indent=2, exclude={"base"} if self.base is None else None) + "\n"


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(directory: Path) -> dict[str, ModelFile]:
    """Digest and size of every regular file below the directory but the manifest, keyed by POSIX path."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): ModelFile(sha256=sha256_of(path), size=path.stat().st_size)
        for path in paths
        if path != directory / MANIFEST_FILE
    }


def digest_of_files(files: Iterable[tuple[str, str]]) -> str:
    """One digest for `(path, sha256)` pairs, whatever their order."""
    lines = "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
