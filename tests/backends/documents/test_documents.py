"""Documents as clients give them."""

from __future__ import annotations

import base64

import pytest

from backends.config import DocumentSettings
from backends.context import CallContext
from backends.documents import Documents, Loaded
from backends.errors import BadRequest, Forbidden, PayloadTooLarge, Unsupported
from generated.models import URL, ImageContentItem, ImageSource, TextContentItem
from tests.backends.documents.conftest import Shelf, pdf

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
PNG_ITEM = ImageContentItem(image=ImageSource(data=base64.b64encode(PNG).decode()))
WHERE = "/documents/0/content"


@pytest.fixture
def documents(shelf: Shelf) -> Documents:
    return Documents(shelf, DocumentSettings(max_mb=1))


@pytest.mark.parametrize(
    ("content", "mime_type", "loaded"),
    [
        ("plain", None, Loaded("plain", b"plain", "text/plain")),
        ("# Markdown", "text/markdown", Loaded("# Markdown", b"# Markdown", "text/markdown")),
        ("https://example.test is a site", None, Loaded("https://example.test is a site", b"", "text/plain")),
        ("data: what we know", None, Loaded("data: what we know", b"", "text/plain")),
        ("na\u00efve", "text/plain; charset=latin-1", Loaded("na\u00efve", "na\u00efve".encode(), "text/plain")),
        (TextContentItem(text="item"), None, Loaded("item", b"item", "text/plain")),
        ([TextContentItem(text="a"), TextContentItem(text="b")], None, Loaded("a\nb", b"a\nb", "text/plain")),
        ([TextContentItem(text="a"), PNG_ITEM], None, Loaded("a\n<image>", b"a\n<image>", "text/plain")),
        ("data:,plain%20text", None, Loaded("plain text", b"plain text", "text/plain")),
        ("data:text/markdown;base64,IyBIaQ==", None, Loaded("# Hi", b"# Hi", "text/markdown")),
        ("data:text/plain;charset=latin-1;base64,6Q==", None, Loaded("\u00e9", b"\xe9", "text/plain")),
        (URL(uri="data:application/json,{}"), "text/plain", Loaded("{}", b"{}", "text/plain")),
        (URL(uri="https://example.test/notes.md"), None, Loaded("# Notes", b"# Notes", "text/markdown", "notes.md")),
        ("https://example.test/cafe", "text/plain", Loaded("caf\u00e9", b"caf\xe9", "text/plain", "cafe")),
    ],
)
def test_texts_items_and_urls_are_loaded(
    documents: Documents, context: CallContext, content: str, mime_type: str | None, loaded: Loaded
) -> None:
    found = documents.load(context, content, mime_type, where=WHERE)
    assert found == Loaded(loaded.text, loaded.data or content.encode(), loaded.mime_type, loaded.name)


def test_a_url_holds_a_pdf_whatever_its_server_says(documents: Documents, context: CallContext, shelf: Shelf) -> None:
    found = documents.load(context, "https://example.test/a%20paper.pdf?version=2", None, where=WHERE)
    assert (found.text, found.mime_type, found.name) == ("On paper.\n", "application/pdf", "a paper.pdf")
    assert shelf.asked == [1 << 20]


def test_a_page_of_the_web_is_read(documents: Documents, context: CallContext) -> None:
    found = documents.load(context, URL(uri="https://example.test/rivers"), None, where=WHERE)
    assert (found.mime_type, found.name) == ("text/html", "rivers")
    assert "The Nile & the Amazon." in (found.text or "")


def test_a_pdf_comes_as_base64_with_its_type(documents: Documents, context: CallContext) -> None:
    content = base64.b64encode(pdf("On paper.")).decode()
    assert documents.load(context, content, "application/pdf", where=WHERE).text == "On paper.\n"


def test_a_file_that_is_passed_on_may_be_of_any_type(documents: Documents, context: CallContext) -> None:
    image = documents.load(context, PNG_ITEM, None, where=WHERE, text=False)
    assert image == Loaded(None, PNG, "image/png")
    damaged = documents.load(context, "data:application/pdf,%25PDF-1.7", None, where=WHERE, text=False)
    assert damaged == Loaded(None, b"%PDF-1.7", "application/pdf")


def test_an_image_has_no_text(documents: Documents, context: CallContext) -> None:
    with pytest.raises(Unsupported, match="image/png"):
        documents.load(context, [PNG_ITEM], None, where=WHERE)


@pytest.mark.parametrize(
    "content",
    [
        URL(uri="https://elsewhere.test/x"),
        "file:///etc/passwd",
        ImageContentItem(image=ImageSource(url=URL(uri="http://10.0.0.1/x"))),
    ],
)
def test_what_may_be_opened_is_for_the_fetcher_to_say(documents: Documents, context: CallContext, content: URL) -> None:
    with pytest.raises(Forbidden) as error:
        documents.load(context, content, None, where=WHERE)
    assert error.value.where == WHERE


@pytest.mark.parametrize("url", ["data:text/plain", "data:text/plain;base64,@@@"])
def test_a_broken_data_url_is_refused(documents: Documents, context: CallContext, url: str) -> None:
    with pytest.raises(BadRequest) as error:
        documents.load(context, URL(uri=url), None, where=WHERE)
    assert error.value.where == WHERE


def test_every_way_has_the_same_limit(documents: Documents, context: CallContext) -> None:
    for content in ("x" * (1 << 20) + "y", f"data:,{'x' * (1 << 20)}y"):
        with pytest.raises(PayloadTooLarge, match="more than 1"):
            documents.load(context, content, None, where=WHERE)
