"""Reading the text of documents in bytes."""

from __future__ import annotations

import threading
import time

import pytest

from backends.config import DocumentSettings
from backends.context import CallContext
from backends.documents import read_text
from backends.errors import BadRequest, Cancelled, DeadlineExceeded, PayloadTooLarge, Unsupported
from tests.backends.documents.conftest import HTML_PAGE, pdf, pdf_of

NO_TEXT = "the PDF has no text: its pages are pictures; send one with recognised text"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (b"Plain text.", "text/plain"),
        (b"# Heading\n\n*text*", "text/markdown"),
        (b"city,people\nKyiv,2952301\n", "text/csv"),
        (b'{"a": [1, 2]}', "application/json"),
        (b"<a>&lol;</a>", "application/xml"),
        (b"key: value", "application/yaml"),
        (b"", "text/plain"),
        (b"whatever it is", ""),
        (b"whatever it is", "application/octet-stream"),
    ],
)
def test_characters_are_taken_as_they_are(data: bytes, mime_type: str) -> None:
    assert read_text(data, mime_type, where="/d") == data.decode()


def test_html_is_what_a_reader_sees() -> None:
    text = read_text(HTML_PAGE, "text/html", where="/d")
    assert text.startswith("Rivers\n")
    assert "The Nile & the Amazon." in text
    assert "Nile   6650" in text
    for hidden in ("script", "color", "not shown", "<"):
        assert hidden not in text


@pytest.mark.parametrize("page", [b"", b"<!-- nothing -->", b"   "])
def test_html_without_content_has_no_text(page: bytes) -> None:
    assert read_text(page, "text/html", where="/d").strip() == ""


def test_pdf_is_the_text_of_its_pages() -> None:
    for compressed in (False, True):
        text = read_text(pdf("First page.", "Second page.", compressed=compressed), "application/pdf", where="/d")
        assert text.split("\n") == ["First page.", "Second page.", ""]


@pytest.mark.parametrize(
    ("text", "encoding", "mime_type"),
    [
        ("naïve café", "utf-8", "text/plain"),
        ("naïve café", "utf-8-sig", "text/plain"),
        ("naïve café", "utf-8", "text/plain; charset=iso-8859-1"),
        ("naïve café", "cp1252", "text/plain; charset=utf-8; x=y"),
        ("naïve café", "cp1252", "text/plain; charset=windows-1252"),
        ("naïve café", "utf-16", "text/plain"),
        ("naïve café", "utf-32", "text/plain; charset=ascii"),
        ("naïve café", "utf-16-le", "text/plain; charset=utf-16-le"),
        ("日本語の文章です", "iso2022_jp", "text/plain; charset=iso-2022-jp"),
        ("日本語の文章です。今日は良い天気ですね。明日も晴れるでしょう。", "shift_jis", "text/plain"),
        ("Съешь же ещё этих мягких французских булок, да выпей чаю. " * 3, "cp1251", "text/plain"),
        ("naïve café", "utf-8", "text/plain; charset=klingon"),
        ("naïve café", "utf-8", "text/plain; charset=base64"),
        ("naïve café", "utf-8", "text/plain; charset=idna"),
    ],
)
def test_a_wrong_or_missing_charset_does_no_harm(text: str, encoding: str, mime_type: str) -> None:
    assert read_text(text.encode(encoding), mime_type, where="/d") == text


def test_html_says_its_charset_itself() -> None:
    page = '<html><head><meta charset="koi8-r"></head><body>Привет, мир</body></html>'.encode("koi8-r")
    assert read_text(page, "text/html", where="/d").strip() == "Привет, мир"


@pytest.mark.parametrize(
    ("data", "mime_type", "name", "expected"),
    [
        (pdf("On paper."), "text/plain", "", "On paper."),
        (pdf("On paper."), "", "report.txt", "On paper."),
        (b"\n\n" + pdf("On paper."), "application/octet-stream", "", "On paper."),
        (b"<!-- x -->\n<!DOCTYPE html><p>Shown<script>no</script>", "", "", "Shown"),
        (b"<p>Shown", "", "index.HTML", "Shown"),
        (b"<p>as it is", "", "readme.md", "<p>as it is"),
        (b"<p>as it is", "text/plain", "index.html", "<p>as it is"),
    ],
)
def test_the_type_is_found_where_it_is_missing_or_plainly_wrong(
    data: bytes, mime_type: str, name: str, expected: str
) -> None:
    assert read_text(data, mime_type, where="/d", name=name).strip() == expected


@pytest.mark.parametrize(
    ("data", "mime_type", "named", "instead"),
    [
        (PNG, "image/png", "image/png", "send the text"),
        (PNG, "text/plain", "image/png", "send the text"),
        (b"no picture", "image/png", "image/png", "send the text"),
        (b"PK\x03\x04" + bytes(50), "", "application/zip", "send the files in it"),
        (b"PK\x03\x04" + bytes(50), "application/vnd.ms-word.x", "application/vnd.ms-word.x", "PDF are read"),
        (b"\x1f\x8b\x08" + bytes(50), "text/plain", "application/gzip", "send the file in it"),
        (b"RIFF\0\0\0\0WAVE", "", "audio/wav", "transcript"),
        (b"\x7fELF" + bytes(50), "text/x-shellscript", "application/x-executable", "PDF are read"),
        (bytes(range(256)) * 4, "", "unknown type", "PDF are read"),
        (bytes(range(256)) * 4, "text/plain", "text/plain", "PDF are read"),
        (b"a\0b", "application/json", "application/json", "PDF are read"),
    ],
)
def test_what_has_no_text_is_refused_by_name_with_what_would_be_right(
    data: bytes, mime_type: str, named: str, instead: str
) -> None:
    with pytest.raises(Unsupported) as error:
        read_text(data, mime_type, where="/documents/0/content")
    assert named in error.value.message
    assert instead in error.value.message
    assert error.value.where == "/documents/0/content"


@pytest.mark.parametrize("data", [b"no pdf at all", b"%PDF-1.7\n", pdf("x")[:200]])
def test_a_damaged_pdf_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest) as error:
        read_text(data, "application/pdf", where="/d")
    assert error.value.message in ("the document is not a readable PDF", NO_TEXT)


def test_a_pdf_of_pictures_is_refused_since_nothing_of_it_could_be_found_again() -> None:
    with pytest.raises(BadRequest, match="pages are pictures"):
        read_text(pdf("", ""), "application/pdf", where="/d")


def test_an_encrypted_pdf_says_so() -> None:
    locked = pdf("secret").replace(
        b"/Root 1 0 R",
        b"/Root 1 0 R /ID [<00><00>] /Encrypt << /Filter /Standard /V 2 /R 3 /Length 128 /P -1 /O <"
        + b"00" * 32
        + b"> /U <"
        + b"00" * 32
        + b"> >>",
    )
    with pytest.raises(BadRequest, match="is encrypted"):
        read_text(locked, "application/pdf", where="/d")


@pytest.mark.parametrize(
    ("data", "mime_type", "settings", "message"),
    [
        (bytes(1 << 20) + b"x", "text/plain", DocumentSettings(max_mb=1), "more than 1 MB"),
        (b"x" * 2000, "text/plain", DocumentSettings(max_characters=1000), "more than 1000 characters"),
        (pdf("a", "b", "c"), "application/pdf", DocumentSettings(max_pages=2), "more than 2 pages"),
        (pdf("x" * 2000), "application/pdf", DocumentSettings(max_characters=1000), "1000 characters"),
        (b"<p>" + b"x" * 2000, "text/html", DocumentSettings(max_characters=1000), "1000 characters"),
    ],
)
def test_a_limit_is_named(data: bytes, mime_type: str, settings: DocumentSettings, message: str) -> None:
    with pytest.raises(PayloadTooLarge, match=message):
        read_text(data, mime_type, where="/d", settings=settings)


def slow_pdf() -> bytes:
    """A PDF whose page content holds operators without end."""
    return pdf("x", compressed=True, stream=b"BT " + b"/F1 1 Tf (x) Tj " * 1_000_000 + b"ET")


def test_reading_ends_with_the_call() -> None:
    context = CallContext(request_id="r")
    begun = time.monotonic()
    threading.Timer(0.3, context.cancellation.cancel).start()
    with pytest.raises(Cancelled):
        read_text(slow_pdf(), "application/pdf", where="/d", context=context)
    with pytest.raises(DeadlineExceeded):
        read_text(slow_pdf(), "", where="/d", context=CallContext(request_id="r", deadline=time.time() + 0.3))
    assert time.monotonic() - begun < 10


def test_reading_takes_no_longer_than_the_settings_allow() -> None:
    with pytest.raises(PayloadTooLarge, match=r"longer than 0\.5 s"):
        read_text(slow_pdf(), "", where="/d", settings=DocumentSettings(timeout_s=0.5))


def test_page_trees_that_contain_themselves_end() -> None:
    pages = b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>"
    with pytest.raises((BadRequest, PayloadTooLarge)):
        read_text(
            pdf_of([b"<< /Type /Catalog /Pages 2 0 R >>", pages]),
            "",
            where="/d",
            settings=DocumentSettings(timeout_s=5),
        )
