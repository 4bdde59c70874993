"""Text out of each format. Runs in the child process where the format is one that can be hostile: `child.py`."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from typing import Any

from charset_normalizer import from_bytes

MAX_PAGES = 2000
MAX_TEXT = 20_000_000
"""Characters of one document."""
_SILENT = frozenset({"script", "style", "template", "noscript", "head", "svg", "iframe", "object"})
_BLOCKS = frozenset(
    {
        *("address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figure", "footer", "form", "h1"),
        *("h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table"),
        *("tr", "ul"),
    }
)


class Unreadable(Exception):
    """The data is not of the format; the message is for the client."""


def decoded(data: bytes, charset: str | None) -> str:
    """The text of bytes, by their byte order mark, the charset that was stated, UTF-8, or what looks likeliest."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(name, "replace")
    for stated in (charset, "utf-8"):
        if stated:
            try:
                return data.decode(stated)
            except (UnicodeDecodeError, LookupError):
                continue
    best = from_bytes(data[:100_000]).best()
    return data.decode(best.encoding if best is not None else "latin-1", "replace")


def html(data: bytes, charset: str | None) -> str:
    """The readable text of a page: no scripts, no styles, a line for each block."""
    reader = _Page()
    reader.feed(decoded(data, charset))
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.parts).splitlines())
    return "\n".join(line for line in lines if line)


def json_text(data: bytes, charset: str | None) -> str:
    """JSON as it stands, once it is known to be JSON."""
    text = decoded(data, charset)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("this is not JSON") from None
    return text


def pdf(data: bytes, charset: str | None) -> str:
    """The text of every page, pages apart by an empty line."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        pages = PdfReader(io.BytesIO(data)).pages
        if len(pages) > MAX_PAGES:
            raise Unreadable(f"the PDF has {len(pages)} pages, at most {MAX_PAGES} are read")
        texts: list[str] = []
        size = 0
        for page in pages:
            texts.append(page.extract_text())
            size += len(texts[-1])
            if size > MAX_TEXT:
                raise Unreadable(f"the PDF holds more than {MAX_TEXT} characters")
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError, IndexError) as error:
        raise Unreadable(f"this is no PDF that can be read ({type(error).__name__})") from None
    text = "\n\n".join(text.strip() for text in texts if text.strip())
    if not text:
        raise Unreadable("the PDF holds no text: its pages are pictures")
    return text


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in _SILENT
        if tag in _BLOCKS:
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT and self._silent:
            self._silent -= 1
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)


HOSTILE: dict[str, Any] = {"application/pdf": pdf, "text/html": html, "application/xhtml+xml": html}
"""By mime type: formats whose parsers a document may abuse."""
PLAIN: dict[str, Any] = {"application/json": json_text, "application/ld+json": json_text}
EXTENSIONS = {
    ".pdf": "application/pdf", ".htm": "text/html", ".html": "text/html", ".xhtml": "text/html",
    ".json": "application/json", ".md": "text/markdown", ".markdown": "text/markdown", ".csv": "text/csv",
    ".txt": "text/plain", ".rst": "text/x-rst", ".log": "text/plain", ".yaml": "text/yaml", ".yml": "text/yaml",
    ".py": "text/x-python", ".jsonl": "text/plain", ".tsv": "text/tab-separated-values", ".xml": "text/xml",
}  # fmt: skip
