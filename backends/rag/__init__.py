"""Retrieval: documents into vector dbs, and what of them bears on a question."""

from __future__ import annotations

from backends.rag.retrieval import Rag

__all__ = ["Rag"]
