"""Where the rows of a dataset come from: fetched, then read by a process of their own."""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from backends.config import DatasetSettings
from backends.context import CallContext
from backends.datasets.columns import Column
from backends.datasets.parser import parse
from backends.errors import BadRequest, Forbidden, PayloadTooLarge, StackError, Unavailable, Unsupported
from backends.ports import JsonObject

FORMATS = ("csv", "json", "jsonl", "parquet", "xlsx")
_FETCHED = frozenset({"http", "https", "file"})
_HUBS = frozenset({"huggingface", "hf"})
_DATA = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
_SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".pq": "parquet", ".xlsx": "xlsx",
}  # fmt: skip
_MIME_TYPES = {
    "text/csv": "csv",
    "application/csv": "csv",
    "application/json": "json",
    "text/json": "json",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
    "application/x-jsonlines": "jsonl",
    "application/jsonlines": "jsonl",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
    "application/parquet": "parquet",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_BLOCK = 1 << 20


class Fetched(Protocol):
    """What a URL held."""

    @property
    def data(self) -> bytes: ...
    @property
    def mime_type(self) -> str: ...


class Outbound(Protocol):
    """The guarded way to URLs and files that clients name."""

    def check(self, url: str, *, where: str) -> None:
        """Return if the URL may be opened as far as it tells itself. Raises BadRequest, Forbidden."""

    def fetch(self, context: CallContext, url: str, *, where: str, max_bytes: int | None = None) -> Fetched:
        """What it holds. Raises BadRequest, Forbidden, PayloadTooLarge, Unavailable."""


class NoOutbound:
    """For a server that opens nothing that clients name: what is registered can be read by one that does."""

    def check(self, url: str, *, where: str) -> None:
        """Takes every URL."""

    def fetch(self, context: CallContext, url: str, *, where: str, max_bytes: int | None = None) -> Fetched:
        raise Forbidden("this server opens no http, https or file URLs; send a data: URL", where=where)


class Sources:
    """Opens the URLs of datasets."""

    def __init__(self, settings: DatasetSettings, outbound: Outbound) -> None:
        self._settings = settings
        self._outbound = outbound

    def check(self, uri: str, *, where: str) -> None:
        """Return if the URL can be opened as far as it tells itself; nothing is opened.

        Raises:
            BadRequest: no URL, or one of a kind that is not read. Forbidden: the settings do not allow it.
        """
        scheme = _scheme(uri, where)
        if scheme == "data":
            _header(uri, where)
        elif scheme in _FETCHED:
            self._outbound.check(uri, where=where)
        elif scheme == "lance":
            self._table(uri, where)
        elif scheme in _HUBS:
            raise Unsupported(
                "datasets of a hub are not read by name; give the URL of one file of it, such as "
                "https://huggingface.co/datasets/<path>/resolve/main/<file>.parquet",
                where=where,
            )
        elif not self._in_storage(uri):
            raise Forbidden(
                f"no {scheme}:// location of this kind is open to datasets; the operator allows it by datasets.storage",
                where=where,
            )

    @contextmanager
    def open(
        self, context: CallContext, uri: str, columns: Sequence[Column], *, where: str
    ) -> Iterator[Iterator[JsonObject]]:
        """The rows behind the URL, each checked against the columns; taken lazily, in bounded memory.

        Raises as `check`, on entering and while iterating; BadRequest: data that is not what the schema says.
        """
        self.check(uri, where=where)
        settings = self._settings
        with tempfile.TemporaryDirectory(prefix="onnxstack-dataset-") as folder:
            if _scheme(uri, where) == "lance":
                path, kind = self._table(uri, where), "lance"
            else:
                path = Path(folder, "data")
                kind = format_of(path, self._fetch(context, uri, path, where), urlsplit(uri).path)
            rows = parse(context, path, kind, columns, settings, where=where)
            try:
                yield rows
            finally:
                rows.close()

    def _fetch(self, context: CallContext, uri: str, path: Path, where: str) -> str:
        """Write the data to the path; its MIME type, "" when nobody says."""
        scheme, most = _scheme(uri, where), self._settings.max_mb << 20
        mime_type = ""
        if scheme == "data":
            data, mime_type = _decoded(uri, where)
            path.write_bytes(data)
        elif scheme in _FETCHED:
            fetched = self._outbound.fetch(context, uri, where=where, max_bytes=most)
            path.write_bytes(fetched.data)
            mime_type = fetched.mime_type.partition(";")[0].strip().lower()
        else:
            self._copy(context, uri, path, where)
        if path.stat().st_size > most:
            raise self._too_large(where)
        return mime_type

    def _copy(self, context: CallContext, uri: str, path: Path, where: str) -> None:
        """Copy an object of a storage that the operator allows."""
        import fsspec

        most = self._settings.max_mb << 20
        try:
            with fsspec.open(uri, "rb") as source, path.open("wb") as target:
                while block := source.read(_BLOCK):
                    context.check()
                    target.write(block)
                    if target.tell() > most:
                        raise self._too_large(where)
        except StackError:
            raise
        except ImportError as error:
            raise Unavailable(
                "the server lacks the package that reads this storage",
                where=where,
                retry_after_s=None,
                internal=str(error),
            ) from error
        except FileNotFoundError as error:
            raise BadRequest("there is nothing at this URL", where=where, internal=str(error)) from error
        except Exception as error:  # each storage has errors of its own
            raise Unavailable("the storage does not answer", where=where, internal=repr(error)) from error

    def _too_large(self, where: str) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"the data has more than {self._settings.max_mb} MB, the limit of datasets.max_mb", where=where
        )

    def _in_storage(self, uri: str) -> bool:
        decoded = unquote(uri)
        if ".." in decoded.split("/") or "\\" in decoded or "\0" in decoded or "::" in decoded:
            return False
        return any(uri.startswith(prefix.rstrip("/") + "/") for prefix in self._settings.storage)

    def _table(self, uri: str, where: str) -> Path:
        """The directory of a `lance://` table, under the roots that the settings name."""
        refused = Forbidden(
            "lance:// tables are read under the directories of datasets.lance_roots; this is none of them", where=where
        )
        parts = urlsplit(uri)
        text = unquote(parts.path)
        if parts.netloc or "\0" in text or not text.endswith(".lance"):
            raise refused
        try:
            path = Path(text).resolve()
        except (OSError, RuntimeError):
            raise refused from None
        roots = [root.expanduser().resolve() for root in self._settings.lance_roots]
        if not any(path.is_relative_to(root) for root in roots) or not path.is_dir():
            raise refused
        return path


def format_of(path: Path, mime_type: str, name: str) -> str:
    """How the data is written: by its first bytes where these tell, else by MIME type, name, or what it looks like."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK\x03\x04"):
        return "xlsx"
    suffix = _SUFFIXES.get(Path(name).suffix.lower())
    told = _MIME_TYPES.get(mime_type) or suffix
    if told in ("parquet", "xlsx"):
        return told  # whose parser says what is wrong with it
    if mime_type == "application/json" and suffix == "jsonl":
        return "jsonl"
    if told is not None:
        return told
    first = head.lstrip()[:1]
    return {b"[": "json", b"{": "jsonl"}.get(first, "csv")


def _scheme(uri: str, where: str) -> str:
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", uri)
    if found is None:
        raise BadRequest(
            "the url has no scheme; known: data, http, https, file, lance, and storages of the settings", where=where
        )
    return found[1].lower()


def _header(uri: str, where: str) -> re.Match[str]:
    header = _DATA.match(uri)
    if header is None:
        raise BadRequest("a data: URL reads `data:<mime type>[;base64],<data>`", where=where)
    return header


def _decoded(uri: str, where: str) -> tuple[bytes, str]:
    """Data and MIME type of a data: URL (RFC 2397)."""
    header = _header(uri, where)
    rest = uri[header.end() :]
    if header[2].lower().split(";")[-1].strip() != "base64":
        return unquote_to_bytes(rest), header[1].lower()
    try:
        text = re.sub(r"\s", "", unquote(rest))
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True), header[1].lower()
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"the data: URL is no base64: {error}", where=where) from error
