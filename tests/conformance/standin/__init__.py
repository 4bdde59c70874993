"""A small correct server of the contract, in memory, for the conformance kit to be tested with.

It is made from the generated interfaces alone and knows nothing of this project's server.
"""

from __future__ import annotations

from tests.conformance.standin.app import serving, standin_app
from tests.conformance.standin.inference import DIMENSION, EMBEDDER, LLM
from tests.conformance.standin.resources import PROVIDER
from tests.conformance.standin.tools import ECHO_GROUP, ECHO_TOOL, FORBIDDEN, RAG_GROUP, SHIELD

__all__ = [
    "DIMENSION",
    "ECHO_GROUP",
    "ECHO_TOOL",
    "EMBEDDER",
    "FORBIDDEN",
    "LLM",
    "PROVIDER",
    "RAG_GROUP",
    "SHIELD",
    "serving",
    "standin_app",
]
