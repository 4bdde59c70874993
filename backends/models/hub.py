"""Models of the Hugging Face hub, fetched by `huggingface_hub`, which knows tokens, caches, proxies and HF_HUB_OFFLINE.

The library's cache names each file by what the hub states of it: the sha256 of a large one, the git object id of a
small one (https://huggingface.co/docs/huggingface_hub/guides/manage-cache). That is what files are checked against.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from backends.errors import BadRequest, CorruptModel, Forbidden, Unavailable, UnknownReference, Unsupported
from backends.models.manifest import ModelKind, ModelSource, Precision, digest_of_files, sha256_of
from backends.models.progress import Progress

if TYPE_CHECKING:
    from backends.models.sources import Source

PREFIX = "hf:"
_CARD = ["config.json", "modules.json", "README.md"]
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "README.md"]
_UNWANTED = ["*/*.safetensors"]
"""Copies in other formats lie in folders; the weights that count lie at the top."""
_SHA256_DIGITS, _GIT_DIGITS = 64, 40


class HubSource:
    """`hf:org/name`, or `hf:org/name@revision`: a folder of the hub at the commit that the revision is now.

    Raises (constructor):
        Unsupported: huggingface_hub is not installed. BadRequest: no such form. UnknownReference: no such model or
        revision. Forbidden: the model is gated. Unavailable: the hub cannot be reached, and the cache does not help.
    """

    fixed_precision: Precision | None = None

    def __init__(self, reference: str) -> None:
        self._name, _, revision = reference.removeprefix(PREFIX).partition("@")
        card = self._snapshot(revision or None, _CARD)
        self._commit = card.name
        folder = _folder_source(card)
        self.kind: ModelKind = folder.kind
        self.licence = folder.licence
        self.defaults: Mapping[str, float] = folder.defaults
        self.default_name = self._name
        pinned = digest_of_files([(self._name, self._commit)])
        self.identity = ModelSource(kind="hub", name=self._name, version=self._commit, sha256=pinned)

    def build(self, staging: Path, target: Path, precision: Precision, progress: Progress) -> None:
        progress("fetch", 0, 0)
        folder = self._snapshot(self._commit, _WANTED, progress)
        checked = staging / "hub"
        _take_checked(folder, checked, progress)
        _folder_source(checked).build(staging, target, precision, progress)

    def _snapshot(self, revision: str | None, wanted: list[str], progress: Progress | None = None) -> Path:
        """The directory of a commit in the library's cache, with the wanted files in it."""
        try:
            from huggingface_hub import snapshot_download
        except ModuleNotFoundError:
            raise Unsupported(
                f"{PREFIX}{self._name}: needs huggingface_hub, which is not here: pip install 'onnxstack[hub]'"
            ) from None
        with _hub_errors(self._name, revision):
            return Path(
                snapshot_download(
                    self._name,
                    revision=revision,
                    allow_patterns=wanted,
                    ignore_patterns=_UNWANTED,
                    tqdm_class=_reporting(progress),
                )
            )


def _folder_source(folder: Path) -> Source:
    from backends.models.sources import HuggingFaceFolderSource

    if not (folder / "config.json").is_file():
        raise BadRequest("the hub's folder holds no config.json, so no model that can be converted")
    return HuggingFaceFolderSource(folder)


def _take_checked(folder: Path, target: Path, progress: Progress) -> None:
    """Make `target` hold the wanted files, when each is what the hub states. One that is not is removed from the cache.

    Raises CorruptModel.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    wanted = [name for name in names if _matches(name, _WANTED) and not _matches(name, _UNWANTED)]
    for done, name in enumerate(wanted):
        progress("check", done, len(wanted))
        kept = (folder / name).resolve()
        stated = kept.name
        if len(stated) not in (_SHA256_DIGITS, _GIT_DIGITS):
            raise CorruptModel(name, "the cache of huggingface_hub does not tell what the hub states of it")
        found = sha256_of(kept) if len(stated) == _SHA256_DIGITS else _git_digest(kept)
        if found != stated:
            kept.unlink()
            (folder / name).unlink(missing_ok=True)
            raise CorruptModel(name, f"has digest {found}, the hub states {stated}; pull again to fetch it anew")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            (target / name).hardlink_to(kept)
        except OSError:  # the cache is on another file system, or this one has no hard links
            shutil.copyfile(kept, target / name)
    progress("check", len(wanted), len(wanted))


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _git_digest(path: Path) -> str:
    """The id of a file as a git object (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects)."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _reporting(progress: Progress | None) -> type[Any]:
    """A bar of the library that draws nothing and reports the bytes that have come."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    lock = Lock()

    class Reporting(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            self._bytes = options.get("unit") == "B" and not str(options.get("name")).endswith(".transfer")
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            with lock:
                self.n += n or 0
            if progress is not None and self._bytes:
                progress("fetch", int(self.n), int(self.total or 0))
            return None

    return Reporting


@contextmanager
def _hub_errors(name: str, revision: str | None) -> Iterator[None]:
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise Forbidden(
            f"{PREFIX}{name} is gated: accept its terms on its page of the hub, and give a token that may read it "
            "(HF_TOKEN, or `hf auth login`)",
            internal=_line(error),
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UnknownReference(
            f"the hub has no model {name!r} for us; a private one needs a token (HF_TOKEN, or `hf auth login`)",
            internal=_line(error),
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UnknownReference(f"the hub's model {name!r} has no revision {revision!r}") from error
    except errors.HFValidationError as error:
        raise BadRequest(f"{PREFIX}{name}: expected hf:org/name or hf:org/name@revision: {_line(error)}") from error
    except (errors.HfHubHTTPError, errors.EntryNotFoundError, errors.FileMetadataError, httpx2.HTTPError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, errors.OfflineModeIsEnabled):
            reason = "HF_HUB_OFFLINE is set, and the cache does not have the model whole"
        else:
            reason = f"{type(cause).__name__}: {_line(cause)}"
        raise Unavailable(f"{PREFIX}{name} cannot be fetched: {reason}", retry_after_s=None) from error


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
