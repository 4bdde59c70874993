"""What a document is: by its first bytes, by what was said of it, by its name, by its looks."""

from __future__ import annotations

import mimetypes
import re
from email.message import Message

UNKNOWN = "application/octet-stream"
_SAYS_NOTHING = frozenset({"", UNKNOWN, "binary/octet-stream", "application/x-unknown", "*/*", "unknown/unknown"})
_CONTAINERS = frozenset({"application/zip", "application/x-ole-storage", "application/gzip"})
"""Types by first bytes that a declared type says more exactly: a .docx is a ZIP archive."""
PDF = "application/pdf"
HTML = frozenset({"text/html", "application/xhtml+xml"})
_TEXT = frozenset(
    {
        "application/ecmascript",
        "application/javascript",
        "application/json",
        "application/jsonl",
        "application/ld+json",
        "application/ndjson",
        "application/sql",
        "application/toml",
        "application/x-httpd-php",
        "application/x-javascript",
        "application/x-ndjson",
        "application/x-python",
        "application/x-sh",
        "application/x-tex",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
    }
)
_BY_ENDING = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".toml": "application/toml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftyp", "video/mp4"),
    (8, b"WAVE", "audio/wav"),
    (8, b"AVI ", "video/x-msvideo"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"PK\x05\x06", "application/zip"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\0", "application/x-xz"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (257, b"ustar", "application/x-tar"),
    (0, b"\x7fELF", "application/x-executable"),
    (0, b"SQLite format 3\0", "application/vnd.sqlite3"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
    (0, b"\0asm", "application/wasm"),
)
_PDF_WITHIN = 1024
"""Bytes before a PDF's header that readers tolerate."""
_HTML = re.compile(rb"<(?:!doctype\s{1,9}html|html[\s>])", re.IGNORECASE)
_HTML_WITHIN = 1024
"""Bytes before the element that begins a page: comments, an XML declaration."""


def essence_of(mime_type: str) -> str:
    """`text/html` of `Text/HTML; charset=utf-8`."""
    return mime_type.partition(";")[0].strip().lower()


def charset_of(mime_type: str) -> str:
    """`utf-8` of `Text/HTML; charset=utf-8`, "" without one."""
    header = Message()
    header["content-type"] = re.sub(r"[\r\n]", " ", mime_type)
    charset = header.get_param("charset", "")
    return charset if isinstance(charset, str) else ""


def media_type_of(data: bytes, declared: str = "", name: str = "") -> str:
    """The type without parameters, `application/octet-stream` if nothing tells it.

    declared: as a client or a server labels it, "" for nothing. name: of its file. First bytes that tell a type count
    more than both.
    """
    found = _by_first_bytes(data)
    essence = essence_of(declared)
    if essence in _SAYS_NOTHING:
        essence = _by_name(name)
    if found and not (found in _CONTAINERS and essence.startswith("application/") and essence not in _TEXT):
        return found
    if essence not in _SAYS_NOTHING:
        return essence
    head = data[:_HTML_WITHIN].removeprefix(b"\xef\xbb\xbf").lstrip()
    return "text/html" if head.startswith(b"<") and _HTML.search(head) else UNKNOWN


def is_text(essence: str) -> bool:
    """Whether documents of the type are characters to read as they are."""
    return essence.startswith("text/") or essence in _TEXT or essence.endswith(("+json", "+yaml")) or _is_xml(essence)


def _is_xml(essence: str) -> bool:
    return essence.endswith("+xml") and not essence.startswith("image/")


def _by_name(name: str) -> str:
    ending = "." + name.rpartition(".")[2].lower() if "." in name else ""
    return _BY_ENDING.get(ending) or mimetypes.guess_type(f"name{ending}")[0] or ""


def _by_first_bytes(data: bytes) -> str:
    if b"%PDF-" in data[:_PDF_WITHIN]:
        return PDF
    for offset, magic, essence in _MAGIC:
        if data.startswith(magic, offset) and (offset != 8 or data.startswith(b"RIFF")):
            return essence
    return ""
