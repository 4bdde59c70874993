"""Control of an engine's models by name: which are loaded, load one, give one up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backends.engine.control import LoadedModel
from backends.errors import BadRequest, UnknownReference
from backends.models.manifest import ModelKind
from backends.models.store import ModelStore
from backends.onnx.engine import Engine
from backends.onnx.residency import Residency


class Residents:
    """The models of one store that share a residency. loaders: how each kind of model is loaded."""

    def __init__(
        self, store: ModelStore, residency: Residency, loaders: Mapping[ModelKind, Callable[[str], None]]
    ) -> None:
        self._store = store
        self._residency = residency
        self._loaders = loaders

    def list(self) -> list[LoadedModel]:
        """As `ModelControl` says."""
        found = []
        for name, residence in sorted(self._residency.residences().items()):
            model = residence.model
            if isinstance(model, Engine):
                running, waiting = model.load
                tokens = 0 if model.adapter else model.scheduler.prefix_tokens  # an adapter's are kept by its base
                kept = tokens * model.kv_bytes_per_token
            else:
                running, waiting, tokens, kept = residence.users, 0, 0, 0
            found.append(LoadedModel(name, residence.size, running, waiting, tokens, kept, residence.idle_s))
        return found

    def load(self, name: str) -> None:
        """As `ModelControl` says. Raises also BadRequest: a kind of model that this engine does not run."""
        kind = self._store.get(name).manifest.kind
        load = self._loaders.get(kind)
        if load is None:
            raise BadRequest(f"model {name!r} is of kind {kind}; this engine runs {', '.join(self._loaders)}")
        load(name)

    def unload(self, name: str) -> None:
        """As `ModelControl` says."""
        if not self._residency.unload(name):
            loaded = ", ".join(sorted(self._residency.loaded())) or "none"
            raise UnknownReference(f"model {name!r} is not loaded; loaded: {loaded}")
