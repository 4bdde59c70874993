"""Named models in one directory, shared by every process of this machine.

    <root>/<escaped name>/           a model: manifest.json and the files it lists
    <root>/.staging/<escaped>.<id>/  a pull or a removal under way, or what a killed one left
    <root>/.export/                  optimum's environment, where the operator made one
    <root>/.locks/<escaped>.lock     held by whoever changes that model; the kernel frees it when its process dies

A model appears by one rename of a complete directory and disappears by one, so a reader sees all of it or nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

import structlog

from backends.errors import BadRequest, Conflict, CorruptModel, StorageFull, Unavailable, UnknownReference
from backends.models.catalog import CATALOG, PackagedModel
from backends.models.exporter import OptimumExporter
from backends.models.manifest import (
    MANIFEST_FILE,
    Manifest,
    ModelMetadata,
    Precision,
    describe_files,
    sha256_of,
)
from backends.models.progress import LoggedProgress, Progress
from backends.models.sources import ADAPTER_CONFIG, DEFAULT_PRECISION, AdapterSource, Source, adapter_folder, resolve
from backends.onnx.config import DecoderConfig, EncoderConfig, NgramClassifierConfig, read_model_config

CONVERTER = "onnxstack 2"
"""Written into each manifest. Raise the number when converted files change: a pull then converts again."""
_MAX_ESCAPED = 200  # bytes; a file name holds 255, and staging adds 33
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that is there. path: its directory."""

    name: str
    path: Path
    manifest: Manifest


class ModelStore:
    """The models below `root`. Safe for threads and processes; reading never waits for a pull."""

    def __init__(
        self,
        root: Path,
        *,
        catalog: Mapping[str, PackagedModel] = CATALOG,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.root = root
        self._catalog = catalog
        self._now = now

    def __contains__(self, name: str) -> bool:
        return (self.root / escape_name(name) / MANIFEST_FILE).is_file()

    def list(self) -> list[StoredModel]:
        """All models by name. One whose manifest cannot be read is left out, and logged."""
        models = []
        for directory in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            if directory.name.startswith(".") or not directory.is_dir():
                continue
            try:
                models.append(self.get(unquote(directory.name)))
            except (CorruptModel, UnknownReference, BadRequest) as error:
                log.warning("model left out", directory=directory.name, reason=str(error))
        return sorted(models, key=lambda model: model.name)

    def get(self, name: str) -> StoredModel:
        """The model of this name. Raises UnknownReference, CorruptModel, BadRequest."""
        directory = self.root / escape_name(name)
        try:
            manifest = Manifest.read(directory)
        except (FileNotFoundError, NotADirectoryError):
            raise UnknownReference(f"model {name!r} is not in the model store", internal=str(self.root)) from None
        if manifest.name != name:  # a renamed directory, or a file system that ignores case
            raise UnknownReference(f"model {name!r} is not in the model store; {manifest.name!r} is")
        return StoredModel(name, directory, manifest)

    def path(self, name: str) -> Path:
        """The model's directory, once every file has the size the manifest states.

        Raises UnknownReference, CorruptModel, BadRequest.
        """
        model = self.get(name)
        for file, expected in model.manifest.files.items():
            _check_size(model.path, file, expected.size)
        return model.path

    def size(self, name: str) -> int:
        """Bytes of the model's files. Raises UnknownReference, CorruptModel, BadRequest."""
        return self.get(name).manifest.size

    def defaults(self, name: str) -> dict[str, float]:
        """Sampling values to use where a request gives none. Raises UnknownReference, CorruptModel, BadRequest."""
        return dict(self.get(name).manifest.defaults)

    def verify(self, name: str) -> None:
        """Return if every file holds what the manifest states; reads them all.

        Raises:
            CorruptModel: names the first file that does not. UnknownReference, BadRequest.
        """
        model = self.get(name)
        for file, expected in model.manifest.files.items():
            _check_size(model.path, file, expected.size)
            found = sha256_of(model.path / file)
            if found != expected.sha256:
                raise CorruptModel(file, f"has sha256 {found}, the manifest states {expected.sha256}")

    def pull(
        self,
        reference: str,
        *,
        name: str | None = None,
        precision: Precision | None = None,
        base: str | None = None,
        progress: Progress | None = None,
    ) -> StoredModel:
        """Fetch, check and convert a model unless it is there already, and return it.

        reference: a name of the catalogue, `hf:org/name[@revision]` of the Hugging Face hub, the path of a GGUF file,
        of a Hugging Face folder, of a folder that onnxruntime-genai's model builder wrote, of a converted folder or of
        a PEFT folder with a LoRA adapter. base: the stored model that the adapter belongs to; None takes the one that
        its configuration names.
        name: what to call it; the reference's own name if None. precision: None takes what is there, else int8; another
        precision than the stored one, or a changed converter, replaces the stored one. Two processes that pull the same
        model do the work once. A pull that dies leaves nothing behind that a later one would not clean up.

        Raises:
            BadRequest: no such reference, or a name that cannot be used. Conflict: the name is taken by a model from
            another source. Unsupported: an architecture or a precision that is not built. Unavailable: the archive
            cannot be fetched. CorruptModel: it is not what the catalogue pins or the hub states. Forbidden: a gated
            model of the hub. StorageFull: no room.
        """
        source = self._source(reference, base)
        return self.add(source, name=name, precision=precision, progress=progress)

    def add(
        self,
        source: Source,
        *,
        name: str | None = None,
        precision: Precision | None = None,
        progress: Progress | None = None,
    ) -> StoredModel:
        """Build a model from its source unless it is there already, and return it, as `pull` does."""
        name = source.default_name if name is None else name
        escaped = escape_name(name)
        precision = _effective_precision(source, precision)
        report = LoggedProgress(name, progress)
        with _storage_errors(self.root), self._locked(escaped, report):
            stored = self._stored(name)
            if stored is not None and _is_same(stored, source, precision):
                return stored
            self._collect_leftovers(held=escaped)
            staging = self._staging(escaped)
            try:
                model = staging / "model"
                work = staging / "work"
                work.mkdir(parents=True)
                source.build(work, model, precision or DEFAULT_PRECISION, report)
                self._describe(model, name, source, report)
                self._swap(model, self.root / escaped)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            return self.get(name)

    def base(self, name: str) -> str | None:
        """The model that this one is an adapter of; None if it stands for itself.

        Raises UnknownReference, BadRequest. CorruptModel: the base is not there, or not the one it was made for.
        """
        lineage = self.get(name).manifest.base
        if lineage is None:
            return None
        if lineage.name not in self:
            raise CorruptModel(MANIFEST_FILE, f"its base model {lineage.name} is not in the model store; pull it")
        found = self.get(lineage.name).manifest.source
        if found.sha256 != lineage.source.sha256:
            raise CorruptModel(MANIFEST_FILE, f"its base model {lineage.name} comes from other weights now")
        return lineage.name

    def remove(self, name: str) -> None:
        """Delete the model. A process that has it open keeps its copy.

        Raises UnknownReference, BadRequest. Conflict: adapters need it.
        """
        escaped = escape_name(name)
        if not (self.root / escaped).exists():
            raise UnknownReference(f"model {name!r} is not in the model store", internal=str(self.root))
        adapters = [m.name for m in self.list() if m.manifest.base is not None and m.manifest.base.name == name]
        if adapters:
            raise Conflict(f"model {name!r} is the base of {', '.join(adapters)}; remove that first")
        with _storage_errors(self.root), self._locked(escaped, LoggedProgress(name, None)):
            self._swap(None, self.root / escaped)

    def _source(self, reference: str, base: str | None) -> Source:
        folder = None if reference in self._catalog else adapter_folder(reference)
        if folder is None:
            if base is not None:
                raise BadRequest(
                    f"{reference!r} is no adapter, so it has no base; expected a folder with {ADAPTER_CONFIG}"
                )
            return resolve(reference, self._catalog, OptimumExporter(self.root / ".export"))
        from backends.onnx.convert.adapter import adapter_base

        base = base or adapter_base(folder)
        if not base:
            raise BadRequest(f"{ADAPTER_CONFIG} names no base model; say which stored model it belongs to")
        try:
            return AdapterSource(folder, base, self.path(base), self.get(base).manifest)
        except UnknownReference:
            raise BadRequest(
                f"the adapter's base model {base[:200]!r} is not in the model store; pull it, or name the stored one"
            ) from None

    def _stored(self, name: str) -> StoredModel | None:
        """The stored model, None if there is none that can be used."""
        try:
            self.path(name)
            return self.get(name)
        except UnknownReference:
            return None
        except CorruptModel as error:
            log.warning("model is damaged and will be pulled again", model=name, reason=str(error))
            return None

    def _describe(self, directory: Path, name: str, source: Source, progress: Progress) -> None:
        """Write the manifest, last of all files, when all others are on disk."""
        config = read_model_config(directory)
        if isinstance(config, DecoderConfig):
            recommended = {
                key: float(value)
                for key in ("temperature", "top_p", "top_k", "repetition_penalty")
                if (value := getattr(config.sampling, key)) is not None
            }
            metadata = ModelMetadata(
                architecture=config.architecture,
                context_length=config.context_length,
                kv_bytes_per_token=config.kv_bytes_per_token,
                converter=CONVERTER,
            )
        else:
            recommended = {}
            metadata = ModelMetadata(
                architecture=config.architecture,
                context_length=config.window_words if isinstance(config, NgramClassifierConfig) else config.max_tokens,
                embedding_dimension=config.embedding_dimension if isinstance(config, EncoderConfig) else None,
                converter=CONVERTER,
            )
        progress("store", 0, 0)
        manifest = Manifest(
            name=name,
            kind=source.kind,
            source=source.identity,
            licence=source.licence,
            precision=config.precision,
            created_at=self._now(),
            files=describe_files(directory),
            defaults=recommended | dict(source.defaults),
            metadata=metadata,
            base=source.base if isinstance(source, AdapterSource) else None,
        )
        for file in manifest.files:
            _sync(directory / file)
        (directory / MANIFEST_FILE).write_text(manifest.to_json(), "utf-8")
        _sync(directory / MANIFEST_FILE)
        _sync(directory)
        progress("store", manifest.size, manifest.size)

    def _swap(self, new: Path | None, place: Path) -> None:
        """Put a directory in its place, or nothing, and delete what was there."""
        old = None
        if place.exists():
            old = self._staging(place.name)
            old.parent.mkdir(parents=True, exist_ok=True)
            place.rename(old)
        if new is not None:
            new.rename(place)
        _sync(self.root)
        if old is not None:
            shutil.rmtree(old)

    def _staging(self, escaped: str) -> Path:
        # A fresh name each time: a pip that outlives its killed parent must not write into the next pull.
        return self.root / ".staging" / f"{escaped}.{uuid.uuid4().hex}"

    def _collect_leftovers(self, held: str) -> None:
        """Delete what killed pulls left: everything staged whose lock is free, or `held` by the caller."""
        staging = self.root / ".staging"
        for directory in staging.iterdir() if staging.is_dir() else ():
            escaped = directory.name.rpartition(".")[0]
            if escaped == held:
                shutil.rmtree(directory, ignore_errors=True)
                continue
            with self._lock_file(escaped) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(directory, ignore_errors=True)

    @contextmanager
    def _locked(self, escaped: str, progress: Progress) -> Iterator[None]:
        """Hold the model's lock; waits for another holder."""
        with self._lock_file(escaped) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("wait", 0, 0)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _lock_file(self, escaped: str) -> Iterator[int]:
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        file = os.open(locks / f"{escaped}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            yield file
        finally:
            os.close(file)


def escape_name(name: str) -> str:
    """The directory name of a model: percent-encoded UTF-8, never outside the root, never hidden.

    >>> escape_name("HuggingFaceTB/SmolLM2-135M-Instruct")
    'HuggingFaceTB%2FSmolLM2-135M-Instruct'

    Raises:
        BadRequest: empty, too long, a control character, or a part that is empty, `.` or `..`.
    """
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise BadRequest(f"model name {name[:100]!r}: a part between slashes must not be empty, '.' or '..'")
    if not name.isprintable():
        raise BadRequest(f"model name {name[:100]!r} holds control characters or invalid text")
    escaped = quote(name, safe="")
    if escaped.startswith("."):
        escaped = "%2E" + escaped[1:]
    if len(escaped) > _MAX_ESCAPED:
        raise BadRequest(
            f"model name {name[:100]!r}... takes {len(escaped)} bytes escaped, the limit is {_MAX_ESCAPED}"
        )
    return escaped


def _effective_precision(source: Source, asked: Precision | None) -> Precision | None:
    if source.fixed_precision is None or asked in (None, source.fixed_precision):
        return asked
    raise BadRequest(f"{source.identity.name} comes as {source.fixed_precision} and cannot become {asked}")


def _is_same(stored: StoredModel, source: Source, precision: Precision | None) -> bool:
    """Whether a pull has nothing to do. Raises Conflict where it must not replace what is stored."""
    ours, theirs = stored.manifest.source, source.identity
    if (ours.kind, ours.sha256) != (theirs.kind, theirs.sha256):
        raise Conflict(
            f"model {stored.name!r} is already stored, from {ours.kind} {ours.name} {ours.version}".rstrip()
            + "; remove it first or give the new one another name"
        )
    current = source.fixed_precision is not None or stored.manifest.metadata.converter == CONVERTER
    return current and precision in (None, stored.manifest.precision)


def _check_size(directory: Path, file: str, expected: int) -> None:
    path = directory.resolve() / file
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise CorruptModel(file, "is missing") from None
    if path.resolve() != path or not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise CorruptModel(file, "is a link, or no file of the model's directory alone; put a copy there")
    size = found.st_size
    if size != expected:
        raise CorruptModel(file, f"has {size} bytes, the manifest states {expected}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _storage_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFull(f"the model store cannot be written: {error.strerror}", internal=str(root)) from error
        if isinstance(error, PermissionError):
            raise Unavailable(
                f"the model store: {error.strerror}", retry_after_s=None, internal=str(error.filename)
            ) from error
        raise
