"""Documents as requests give them: text, items, URLs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from backends.context import CallContext
from backends.documents.reading import kind_of, read_text
from backends.errors import Unsupported
from backends.generation import text_of
from backends.net import Outbound
from generated.models import URL, DocumentContent

_URL = re.compile(r"(https?|file)://|data:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document. text: None where its format holds none. name: of a file, "" without one."""

    text: str | None
    data: bytes
    mime_type: str
    name: str


class Documents:
    """Loads documents; what is named by a URL is fetched within the rules of `Outbound`."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    def load(self, context: CallContext, content: DocumentContent, mime_type: str | None, *, where: str) -> Loaded:
        """The document with its text. A text that is a URL is what the URL holds.

        Raises:
            Unsupported: an image among items. BadRequest, Forbidden, PayloadTooLarge, Unavailable: of a URL, or of a
            document that is not what it says.
        """
        url = content.uri if isinstance(content, URL) else content if isinstance(content, str) else ""
        if isinstance(content, URL) or (_URL.match(url) and not re.search(r"\s", url[:200])):
            fetched = self._outbound.fetch(context, url, where=where)
            name = "" if fetched.url.startswith("data:") else unquote(PurePosixPath(urlsplit(fetched.url).path).name)
            return _loaded(fetched.data, mime_type or fetched.mime_type, name, where)
        assert not isinstance(content, URL)  # noqa: S101
        text = text_of(content, where=where)
        return _loaded(text.encode("utf-8", "surrogatepass"), mime_type or "text/plain", "", where, text)


def _loaded(data: bytes, mime_type: str, name: str, where: str, given: str | None = None) -> Loaded:
    kind, _ = kind_of(data, mime_type, name)
    try:
        text: str | None = (
            given if given is not None and kind != "text/html" else read_text(data, mime_type, where=where, name=name)
        )
    except Unsupported:
        text = None
    return Loaded(text, data, kind or "application/octet-stream", name)
