from __future__ import annotations

import io
import zlib

import pytest
from pypdf import PdfWriter

from backends.config import OutboundSettings
from backends.context import CallContext
from backends.documents import Documents, read_text
from backends.errors import BadRequest, PayloadTooLarge, Unsupported
from backends.net import Outbound
from generated.models import URL, TextContentItem

CONTEXT = CallContext(request_id="test")


def pdf(stream: bytes, extra: bytes = b"") -> bytes:
    """A PDF of one page with this content, which may be a filtered stream."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(stream), extra, stream),
    ]
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    places = []
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % start)
    return out.getvalue()


PAGE = b"BT /F1 12 Tf 10 100 Td (The refund window is 30 days.) Tj ET"


def read(data: bytes, mime_type: str = "", name: str = "") -> str:
    return read_text(data, mime_type, where="/d", name=name)


@pytest.mark.parametrize("mime_type", ["text/plain", "text/markdown", "text/csv", "application/yaml", ""])
def test_text_is_what_it_is(mime_type: str) -> None:
    assert read("# Größe\na,b\n".encode(), mime_type) == "# Größe\na,b\n"


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        ("Grüße aus Köln, schöne Öfen".encode("latin-1"), "text/plain; charset=ISO-8859-1"),
        ("Grüße aus Köln, schöne Öfen".encode("utf-16"), "text/plain"),
        ("Grüße aus Köln, schöne Öfen".encode("utf-8-sig"), "text/plain"),
        ("Grüße aus Köln, schöne Öfen".encode(), "text/plain; charset=no-such-charset"),
    ],
)
def test_every_charset_is_read(data: bytes, mime_type: str) -> None:
    assert read(data, mime_type) == "Grüße aus Köln, schöne Öfen"


def test_a_page_is_its_readable_text() -> None:
    page = b"<html><head><title>t</title></head><body><script>evil()</script><h1>Fees &amp; more</h1><p>a <b>b</b></p>"
    assert read(page, "text/html") == "Fees & more\na b"
    assert read(page) == "Fees & more\na b"


def test_json_is_checked() -> None:
    assert read(b'{"a": 1}', "application/json") == '{"a": 1}'
    with pytest.raises(BadRequest, match="not JSON"):
        read(b"{a", "application/json")
    with pytest.raises(BadRequest, match="not JSON"):
        read(b"[" * 100_000, "application/json")


def test_a_pdf_is_the_text_of_its_pages_whatever_its_type_says() -> None:
    for mime_type in ("application/pdf", "text/plain", ""):
        assert read(pdf(PAGE), mime_type) == "The refund window is 30 days."


def test_hostile_pdfs_end_within_their_limits() -> None:
    bomb = zlib.compress(zlib.compress(b"0" * 500_000_000))
    looped = io.BytesIO()
    writer = PdfWriter()
    writer.add_blank_page(10, 10)
    writer.write(looped)
    loop = looped.getvalue().replace(b"/Parent 2 0 R", b"/Parent 4 0 R")
    for data in (pdf(bomb, b"/Filter [/FlateDecode /FlateDecode]"), b"%PDF-1.4\n" + b"9" * 100_000, loop, b"%PDF-"):
        with pytest.raises(BadRequest, match=r"cannot be read|than it may|takes longer"):
            read(data, "application/pdf")


def test_what_holds_no_text_is_refused_by_name() -> None:
    for mime_type, data in (("image/png", b"\x89PNG\r\n"), ("application/zip", b"PK\x03\x04"), ("", b"\0\1\2\3")):
        with pytest.raises(Unsupported, match="hold no text"):
            read(data, mime_type)
    with pytest.raises(BadRequest, match="binary"):
        read(b"\0\1\2\3", "text/plain")
    with pytest.raises(PayloadTooLarge):
        read(b"x" * 50_000_001, "text/plain")


def test_documents_are_texts_items_and_urls() -> None:
    documents = Documents(Outbound(OutboundSettings()))

    def text(content: object, mime_type: str | None = None) -> str | None:
        return documents.load(CONTEXT, content, mime_type, where="/d").text  # type: ignore[arg-type]

    assert text("plain") == "plain"
    assert text([TextContentItem(text="a"), TextContentItem(text="b")]) == "a\nb"
    assert text(URL(uri="data:text/plain,a%20b")) == "a b"
    assert text("data:text/html,<p>x</p>") == "x"
    assert text("https is a protocol") == "https is a protocol"
    picture = documents.load(CONTEXT, URL(uri="data:image/png;base64,iVBORw=="), None, where="/d")
    assert (picture.text, picture.mime_type, picture.data) == (None, "image/png", b"\x89PNG")
