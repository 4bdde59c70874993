"""Documents: what a client gives to be read, as text. Parsers of formats that can be hostile run in a child process."""

from __future__ import annotations

from backends.documents.documents import Documents, Loaded
from backends.documents.reading import read_text

__all__ = ["Documents", "Loaded", "read_text"]
