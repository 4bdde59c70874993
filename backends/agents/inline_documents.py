"""Documents that a request holds itself: texts, text items and `data:` URLs of text."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from backends.context import CallContext
from backends.errors import BadRequest, Unsupported
from backends.generation import text_of
from generated.models import URL, DocumentContent

_DATA = re.compile(r"data:(?P<mime>[^;,]*)(?P<options>(?:;[^,]*)?),(?P<data>.*)", re.DOTALL)
_ELSEWHERE = re.compile(r"(?:https?|file)://")
_TEXTS = ("text/", "application/json")


@dataclass(frozen=True, slots=True)
class InlineDocument:
    """A document as read. text: None where it has none."""

    text: str | None
    data: bytes
    mime_type: str
    name: str = ""


class InlineDocuments:
    """Reads what stands in the request and fetches nothing."""

    def load(
        self, context: CallContext, content: DocumentContent, mime_type: str | None, *, where: str
    ) -> InlineDocument:
        """Raises BadRequest: no `data:` URL that can be read. Unsupported: an image, or a URL of something else."""
        uri = content.uri if isinstance(content, URL) else content
        if isinstance(uri, str) and uri.startswith("data:"):
            return _of_data(uri, where)
        if isinstance(uri, str) and (isinstance(content, URL) or _ELSEWHERE.match(uri)):
            raise Unsupported("documents are texts or data: URLs here; URLs are not fetched", where=where)
        assert not isinstance(content, URL)  # noqa: S101
        text = text_of(content, where=where)
        return InlineDocument(text, text.encode("utf-8", "replace"), mime_type or "text/plain")


def _of_data(uri: str, where: str) -> InlineDocument:
    match = _DATA.fullmatch(uri)
    if match is None:
        raise BadRequest("a data: URL is data:<mime type>;base64,<data>", where=where)
    data = unquote_to_bytes(match["data"])
    if match["options"].endswith(";base64"):
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error:
            raise BadRequest("the data of a data: URL is no base64", where=where) from None
    mime_type = match["mime"] or "text/plain"
    return InlineDocument(data.decode("utf-8", "replace") if mime_type.startswith(_TEXTS) else None, data, mime_type)
