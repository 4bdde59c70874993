"""Bytes of text to characters, whatever was said about their encoding."""

from __future__ import annotations

import codecs

from charset_normalizer import from_bytes

SAMPLE = 65_536
"""Bytes by which an encoding is guessed."""
TOO_SHORT = 64
"""Bytes below which their looks tell nothing; windows-1252 is what browsers take then."""
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NOT_OF_DOCUMENTS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7"})
"""Codecs of Python that are no encodings of documents; some take quadratic time."""
_LIKE_ASCII = ("utf-16", "utf-32", "iso2022", "hz")
"""Encodings whose bytes may be valid UTF-8 that means something else."""
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b")
MAX_CONTROLS = 0.02
"""Share of control characters above which characters are no text."""


def decode(data: bytes, declared: str = "") -> str | None:
    """The text, without a byte order mark; None if the bytes are no text.

    A mark decides, then UTF-8 where it fits, since labels are wrong more often than that; then `declared`, then what
    the bytes look like.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _text(_strictly(data[len(mark) :], encoding))
    label = _codec_of(declared)
    order = [label, "utf-8"] if label.startswith(_LIKE_ASCII) else ["utf-8", label]
    for encoding in filter(None, order):
        text = _text(_strictly(data, encoding))
        if text is not None:
            return text
    if b"\0" in data[:SAMPLE]:
        return None
    if len(data) < TOO_SHORT and (text := _text(_strictly(data, "windows-1252"))) is not None:
        return text
    best = from_bytes(data[:SAMPLE]).best()
    return None if best is None else _text(data.decode(best.encoding, "replace"))


def _codec_of(declared: str) -> str:
    """Python's name of the encoding, "" for none that a document may have."""
    try:
        name = codecs.lookup(declared).name if declared.isascii() else ""
    except (LookupError, ValueError):
        return ""
    return "" if name in _NOT_OF_DOCUMENTS else name


def _strictly(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError):  # LookupError: base64 and the like, which make no text
        return None


def _text(text: str | None) -> str | None:
    """`text` unless it cannot be one: characters of nobody's alphabet."""
    if text is None or "\0" in text:
        return None
    sample = text[:SAMPLE]
    controls = sum(ord(character) in _CONTROLS for character in sample)
    return text if controls <= len(sample) * MAX_CONTROLS else None
