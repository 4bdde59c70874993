"""Documents whose text is in the request itself."""

from __future__ import annotations

from dataclasses import dataclass

from backends.context import CallContext
from backends.errors import Unsupported
from backends.generation import text_of
from generated.models import URL, DocumentContent


@dataclass(frozen=True, slots=True)
class GivenText:
    """A text as it was given."""

    text: str
    data: bytes
    mime_type: str
    name: str = ""


class GivenTexts:
    """Reads texts and lists of them, and opens nothing: a URL is refused."""

    def load(self, context: CallContext, content: DocumentContent, mime_type: str | None, *, where: str) -> GivenText:
        """Raises Unsupported: a URL, or an image."""
        context.check()
        if isinstance(content, URL):
            raise Unsupported("this server reads no documents from URLs; send the text", where=where)
        text = text_of(content, where=where)
        return GivenText(text, text.encode("utf-8", "surrogatepass"), mime_type or "text/plain")
