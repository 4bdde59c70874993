"""Fault 20: archives and documents that are made to harm who reads them."""

from __future__ import annotations

import io
import os
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from functools import partial

import pytest

from backends.config import DocumentSettings
from backends.documents import read_text
from backends.errors import BadRequest, PayloadTooLarge, Unsupported
from tests.backends.documents.conftest import pdf, pdf_of

SETTINGS = DocumentSettings(timeout_s=3, memory_mb=512, max_characters=1_000_000)
CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"


def archive(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(name, bytes(1_000_000))
    return file.getvalue()


def bomb(megabytes: int) -> bytes:
    """A PDF page of some kilobytes that unpacks to so many megabytes of spaces."""
    return pdf("x", compressed=True, stream=b" " * (megabytes << 20))


def nested_streams() -> bytes:
    """A page of 200 megabytes packed twice, into some hundred bytes."""
    packed = zlib.compress(zlib.compress(b" " * (200 << 20), 9), 9)
    content = b"<< /Length %d /Filter [/FlateDecode /FlateDecode] >>\nstream\n%s\nendstream" % (len(packed), packed)
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 3 0 R /Resources << >> >>"
    return pdf_of([CATALOG, b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>", content, page])


def many_objects() -> bytes:
    """100,000 pages of nothing."""
    kids = b" ".join(b"%d 0 R" % number for number in range(3, 100_003))
    pages = b"<< /Type /Pages /Kids [%s] /Count 100000 >>" % kids
    return pdf_of([CATALOG, pages] + [b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>"] * 100_000)


def loop_of_pages() -> bytes:
    return pdf_of([CATALOG, b"<< /Type /Pages /Kids [3 0 R] >>", b"<< /Type /Pages /Kids [2 0 R 2 0 R] >>"])


def loop_of_references() -> bytes:
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 5 0 R >>"
    return pdf_of([CATALOG, b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>", page, b"5 0 R", b"4 0 R"])


def deep_html() -> bytes:
    return b"<div>" * 200_000 + b"deep"


def wide_table() -> bytes:
    return b"<table>" + b"<tr>" + b"<td>" * 200_000


@pytest.mark.parametrize("name", ["bomb", "../../etc/cron.d/harm", "/etc/passwd"])
def test_archives_are_never_opened(name: str) -> None:
    for mime_type in ("application/zip", "text/plain", ""):
        with pytest.raises(Unsupported, match="archives are not opened"):
            read_text(archive(name), mime_type, where="/d")


@pytest.mark.parametrize(
    "make",
    [partial(bomb, 70), partial(bomb, 200), nested_streams, many_objects, loop_of_pages, loop_of_references],
    ids=["bomb", "greater bomb", "bomb in a bomb", "objects", "loop of pages", "loop of references"],
)
def test_a_hostile_pdf_is_refused_in_time_and_costs_the_server_no_memory(make: Callable[[], bytes]) -> None:
    document = make()
    begun = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises((BadRequest, PayloadTooLarge)):
            read_text(document, "application/pdf", where="/d", settings=SETTINGS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begun < SETTINGS.timeout_s + 5
    assert peak < 10 << 20


@pytest.mark.parametrize("document", [deep_html(), wide_table()], ids=["deep", "wide"])
def test_hostile_html_ends_in_time(document: bytes) -> None:
    begun = time.monotonic()
    try:
        read_text(document, "text/html", where="/d", settings=SETTINGS)
    except (BadRequest, PayloadTooLarge) as refusal:
        assert refusal.where == "/d"
    assert time.monotonic() - begun < SETTINGS.timeout_s + 5


def test_entities_of_xml_are_not_expanded() -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE html [<!ENTITY e0 "lol">{entities}]><html><p>&e11;</p></html>'.encode()
    reads = b'<!DOCTYPE html [<!ENTITY file SYSTEM "file:///etc/passwd">]><html><p>&file;</p></html>'
    for mime_type in ("text/xml", "application/xhtml+xml", "text/html", ""):
        assert len(read_text(bomb, mime_type, where="/d", settings=SETTINGS)) <= len(bomb)
        assert "root:" not in read_text(reads, mime_type, where="/d", settings=SETTINGS)


def test_a_huge_image_is_refused_unseen() -> None:
    # 100 megapixels by its header; nothing decodes it.
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0'\x10\0\0'\x10\x08\x02\0\0\0"
    for mime_type in ("image/png", "text/plain", "application/pdf"):
        with pytest.raises(Unsupported, match="images have no text"):
            read_text(head, mime_type, where="/d")


def test_the_reading_process_has_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # an interpreter that saw it would not start
    assert read_text(b"<p>fine", "text/html", where="/d").strip() == "fine"
    assert os.environ["PYTHONHOME"] == "/nowhere"
