"""Documents of every kind, made here, and a fetcher that has them under URLs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from backends.config import OutboundSettings
from backends.context import CallContext
from backends.errors import Forbidden
from backends.net import Fetched, Outbound

OUTBOUND = Outbound(OutboundSettings())

HTML_PAGE = b"""<!doctype html><html><head><title>Rivers</title><style>p {color: red}</style>
<script>alert("script in head")</script></head><body><h1>Long rivers</h1>
<p>The Nile &amp; the <b>Amazon</b>.</p><script>document.write("script in body")</script>
<table><tr><th>river</th><th>km</th></tr><tr><td>Nile</td><td>6650</td></tr></table>
<noscript>switch scripts on</noscript><template>not shown</template></body></html>"""


def pdf(*pages: str, compressed: bool = False, stream: bytes | None = None) -> bytes:
    """A PDF with a line of text on each page. stream: what stands as it is in place of every page's content."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    kids = []
    for text in pages:
        content = stream or b"BT /F1 12 Tf 72 720 Td (" + text.encode("latin-1") + b") Tj ET"
        packed = zlib.compress(content, 9) if compressed else content
        extra = b" /Filter /FlateDecode" if compressed else b""
        objects.append(b"<< /Length %d%s >>\nstream\n%s\nendstream" % (len(packed), extra, packed))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R /Resources << /Font << /F1 "
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    return pdf_of(objects)


def pdf_of(objects: list[bytes]) -> bytes:
    """A PDF of these objects, numbered from 1; the first is its catalog."""
    parts, offsets, size = [b"%PDF-1.7\n"], [], 9
    for number, body in enumerate(objects, 1):
        offsets.append(size)
        parts.append(b"%d 0 obj\n%s\nendobj\n" % (number, body))
        size += len(parts[-1])
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    trailer = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, size)
    return b"".join(parts) + head + table + trailer


@dataclass
class Shelf:
    """What URLs hold; any other URL is forbidden, except one that holds its data itself.

    asked: with which limits they were asked for.
    """

    pages: Mapping[str, tuple[bytes, str]]
    asked: list[int | None] = field(default_factory=list)

    def fetch(self, context: CallContext, url: str, *, where: str, max_bytes: int | None = None) -> Fetched:
        if url.startswith("data:"):
            return OUTBOUND.fetch(context, url, where=where, max_bytes=max_bytes)
        self.asked.append(max_bytes)
        if url not in self.pages:
            raise Forbidden("outbound.allow does not list the host", where=where)
        return Fetched(*self.pages[url], url)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(
        {
            "https://example.test/a%20paper.pdf?version=2": (pdf("On paper."), "application/octet-stream"),
            "https://example.test/rivers": (HTML_PAGE, "text/html; charset=utf-8"),
            "https://example.test/notes.md": (b"# Notes", "application/octet-stream"),
            "https://example.test/cafe": ("café".encode("cp1252"), "text/plain; charset=windows-1252"),
        }
    )
