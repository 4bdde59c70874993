"""The model store: named models on disk, where they come from and what is known about them."""

from backends.models.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_LLM
from backends.models.manifest import Manifest
from backends.models.store import ModelStore, StoredModel

__all__ = ["DEFAULT_EMBEDDING_MODEL", "DEFAULT_LLM", "Manifest", "ModelStore", "StoredModel"]
