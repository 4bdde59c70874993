"""What retrieval needs of the reading of documents."""

from __future__ import annotations

from typing import Protocol

from backends.context import CallContext
from generated.models import DocumentContent


class LoadedDocument(Protocol):
    """A document that has been read. text: None if there is none in it; name: of its file, "" without one."""

    @property
    def text(self) -> str | None: ...

    @property
    def data(self) -> bytes: ...

    @property
    def mime_type(self) -> str: ...

    @property
    def name(self) -> str: ...


class DocumentReader(Protocol):
    """Reads what a document names or holds."""

    def load(
        self, context: CallContext, content: DocumentContent, mime_type: str | None, *, where: str
    ) -> LoadedDocument:
        """The document's text and type. Raises BadRequest, Forbidden, PayloadTooLarge: it cannot be read."""
