"""The text of a document in bytes."""

from __future__ import annotations

from backends.config import DocumentSettings
from backends.context import CallContext
from backends.documents.charset import decode
from backends.documents.child import parse
from backends.documents.media_type import HTML, PDF, UNKNOWN, charset_of, is_text, media_type_of
from backends.errors import BadRequest, PayloadTooLarge, Unsupported

TAKEN = "text, Markdown, HTML, CSV, JSON and PDF are read"
_INSTEAD = {
    "image": "images have no text that is read; describe it, or send the text",
    "audio": "sound is not read; send a transcript",
    "video": "films are not read; send a transcript",
    "application/zip": "archives are not opened; send the files in it",
    "application/gzip": "archives are not opened; send the file in it",
}


def read_text(
    data: bytes,
    mime_type: str = "",
    *,
    where: str,
    name: str = "",
    context: CallContext | None = None,
    settings: DocumentSettings | None = None,
) -> str:
    """The text of a document: of HTML and PDF what a reader sees, everything else as it is, without NUL characters.

    mime_type: with or without `charset`, "" for what the bytes and the name tell; bytes that are plainly something else
    count more. where: JSON pointer of the document. context: of the call, which ends the reading too.

    Raises:
        Unsupported: an image, or another type without text, by name. BadRequest: damaged, encrypted, or without any
        text. PayloadTooLarge: over a limit of the settings, which the message names. Cancelled, DeadlineExceeded.
    """
    settings = settings or DocumentSettings()
    context = context or CallContext(request_id="")
    if len(data) > settings.max_mb << 20:
        raise PayloadTooLarge(f"the document has more than {settings.max_mb} MB", where=where)
    essence = media_type_of(data, mime_type, name)
    if essence == PDF:
        text = parse(context, "pdf", data, settings, where)
        if not text.strip():
            raise BadRequest("the PDF has no text: its pages are pictures; send one with recognised text", where=where)
        return text
    text = _decoded(data, essence, charset_of(mime_type), where)
    if essence in HTML:
        text = parse(context, "html", text.encode("utf-8", "replace"), settings, where)
    if len(text) > settings.max_characters:
        raise PayloadTooLarge(f"the document has more than {settings.max_characters} characters", where=where)
    return text


def _decoded(data: bytes, essence: str, charset: str, where: str) -> str:
    if essence != UNKNOWN and not is_text(essence):
        instead = _INSTEAD.get(essence) or _INSTEAD.get(essence.partition("/")[0]) or TAKEN
        raise Unsupported(f"a document of type {essence[:100]!a} is not read: {instead}", where=where)
    if essence in HTML and not charset:
        charset = _charset_in_html(data)
    text = decode(data, charset)
    if text is None:
        said = "of an unknown type" if essence == UNKNOWN else f"of type {essence[:100]!a}"
        raise Unsupported(f"a document {said} is no text in any encoding: {TAKEN}", where=where)
    return text


def _charset_in_html(data: bytes) -> str:
    """What the head of a page says about itself, https://html.spec.whatwg.org/#prescan-a-byte-stream."""
    _, found, rest = data[:1024].lower().partition(b"charset=")
    label = rest.lstrip(b" \"'").partition(b">")[0].split(b'"')[0].split(b"'")[0].split(b";")[0].split(b"/")[0]
    return label.strip().decode("ascii", "replace") if found else ""
