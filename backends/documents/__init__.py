"""Documents that clients give: where they lie, what they are, and the text in them."""

from __future__ import annotations

from backends.documents.documents import Documents, Fetcher, Loaded
from backends.documents.media_type import media_type_of
from backends.documents.text import read_text

__all__ = ["Documents", "Fetcher", "Loaded", "media_type_of", "read_text"]
