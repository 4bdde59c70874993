"""Documents as clients give them: text, items, images, `data:` URLs, and URLs that are fetched."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote, urlsplit

from backends.config import DocumentSettings
from backends.context import CallContext
from backends.documents.media_type import UNKNOWN, charset_of, is_text, media_type_of
from backends.documents.text import read_text
from backends.errors import BadRequest, PayloadTooLarge
from backends.net import Fetched
from generated.models import URL, DocumentContent, ImageContentItem, InterleavedContentItem, TextContentItem

IMAGE = "<image>"
"""Stands for an image among texts."""
_URL = re.compile(r"(?:https?|file)://\S+", re.IGNORECASE)
_DATA_URL = re.compile(r"data:[^,]{0,1000},", re.IGNORECASE)


class Fetcher(Protocol):
    """`Outbound`, which opens URLs within the settings' rules."""

    def fetch(self, context: CallContext, url: str, *, where: str, max_bytes: int | None = None) -> Fetched:
        """What the URL holds. Raises BadRequest, Forbidden, PayloadTooLarge: with `where`."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document that lies here now.

    text: None if it was not asked for. mime_type: without parameters. name: of its file, "" without one.
    """

    text: str | None
    data: bytes
    mime_type: str
    name: str = ""


class Documents:
    """Loads what a client names or gives as a document."""

    def __init__(self, outbound: Fetcher, settings: DocumentSettings | None = None) -> None:
        self._outbound = outbound
        self._settings = settings or DocumentSettings()

    def load(
        self,
        context: CallContext,
        content: DocumentContent,
        mime_type: str | None,
        *,
        where: str,
        text: bool = True,
    ) -> Loaded:
        """The document's bytes, and its text.

        A string that is a URL as a whole means what the URL holds; one that is labelled as a type without text is
        base64. Texts of a list are lines of one document, and an image among them is `<image>`.

        text: whether it is wanted. A file that is passed on as it is may be of any type and need not be readable.

        Raises:
            Unsupported: its type has no text, by name. BadRequest: it cannot be read, or is no URL. Forbidden: a URL
            that the settings do not allow. PayloadTooLarge. Cancelled, DeadlineExceeded.
        """
        context.check()
        declared = mime_type or ""
        if isinstance(content, list) and len(content) == 1:
            content = content[0]
        if isinstance(content, TextContentItem):
            content = content.text
        if isinstance(content, ImageContentItem):
            return self._image(context, content, declared, where, text)
        if isinstance(content, list):
            content = "\n".join(map(_line, content))
        elif isinstance(content, URL):
            return self._from_url(context, content.uri, declared, where, text)
        elif _URL.fullmatch(content.strip()) or _DATA_URL.match(content):
            return self._from_url(context, content.strip(), declared, where, text)
        elif (data := _as_base64(content, declared)) is not None:
            return self._loaded(context, data, declared, "", where, text)
        data = content.encode("utf-8", "replace")
        return self._loaded(context, data, _of_characters(data, declared), "", where, text)

    def _image(self, context: CallContext, item: ImageContentItem, declared: str, where: str, text: bool) -> Loaded:
        if item.image.url is not None:
            return self._from_url(context, item.image.url.uri, declared, where, text)
        data = _from_base64(item.image.data or "", where)
        return self._loaded(context, data, declared, "", where, text)

    def _from_url(self, context: CallContext, url: str, declared: str, where: str, text: bool) -> Loaded:
        fetched = self._outbound.fetch(context, url, where=where, max_bytes=self._settings.max_mb << 20)
        is_data = fetched.url.startswith("data:")
        name = "" if is_data else unquote(urlsplit(fetched.url).path).rpartition("/")[2]
        return self._loaded(context, fetched.data, _labels(declared, fetched.mime_type), name, where, text)

    def _loaded(self, context: CallContext, data: bytes, declared: str, name: str, where: str, text: bool) -> Loaded:
        if len(data) > self._settings.max_mb << 20:
            raise PayloadTooLarge(f"the document has more than {self._settings.max_mb} MB", where=where)
        essence = media_type_of(data, declared, name)
        if not text:
            return Loaded(None, data, essence, name)
        read = read_text(data, declared, where=where, name=name, context=context, settings=self._settings)
        return Loaded(read, data, "text/plain" if essence == UNKNOWN else essence, name)


def _from_base64(text: str, where: str) -> bytes:
    characters = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(characters + "=" * (-len(characters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("the content is no base64", where=where) from error


def _as_base64(text: str, declared: str) -> bytes | None:
    """The bytes of a string that stands for a document without text of its own, None if it is plain text."""
    essence = media_type_of(b"", declared)
    if not declared or is_text(essence):
        return None
    try:
        return _from_base64(text, "")
    except BadRequest:
        return None


def _of_characters(data: bytes, declared: str) -> str:
    """The label of a string that is UTF-8 now, whatever its label says."""
    return f"{media_type_of(data, declared or 'text/plain')}; charset=utf-8"


def _labels(given: str, found: str) -> str:
    """The client's label if it has one, with the charset of whoever names one."""
    label, charset = given or found, charset_of(given) or charset_of(found)
    return f"{label.partition(';')[0]}; charset={charset}" if charset else label


def _line(item: InterleavedContentItem) -> str:
    return item.text if isinstance(item, TextContentItem) else IMAGE
