"""A Hugging Face model folder read as untrusted input: only regular files inside it, only JSON of a sane size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from backends.errors import CorruptModel

MAX_JSON_BYTES = 16 << 20
_T = TypeVar("_T")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,255}")


class ModelFolder:
    """The files of `root`, by name or by `folder/name` for names that this code chose itself."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def path(self, name: str) -> Path:
        """The file `name`, which exists inside the folder.

        Raises:
            CorruptModel: there is no such regular file, or it lies outside, by its name or through a symbolic link.
        """
        parts = name.split("/")
        if any(part in (".", "..") or not _PLAIN_NAME.fullmatch(part) for part in parts):
            raise CorruptModel(name[:200], "is not a file name inside the model folder")
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root):
            raise CorruptModel(name, "is a link that leaves the model folder")
        if not path.is_file():
            raise CorruptModel(name, "is missing")
        return path

    def has(self, name: str) -> bool:
        """Whether there is an entry `name`; `path` may still refuse it."""
        return (self.root / name).exists() or (self.root / name).is_symlink()

    def json(self, name: str) -> dict[str, Any]:
        """The JSON object in the file `name`.

        Raises:
            CorruptModel: it is missing, over 16 MiB or not an object.
        """
        return self._decode(name, dict[str, Any])

    def json_list(self, name: str) -> list[Any]:
        """The JSON array in the file `name`, with the checks of `json`."""
        return self._decode(name, list[Any])

    def text(self, name: str) -> str:
        """The UTF-8 text in the file `name`, with the checks of `json`."""
        try:
            return self._read(name).decode()
        except UnicodeDecodeError as error:
            raise CorruptModel(name, "is not UTF-8") from error

    def _decode(self, name: str, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(self._read(name), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptModel(name, f"is not the JSON that belongs there: {error}") from error

    def _read(self, name: str) -> bytes:
        path = self.path(name)
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise CorruptModel(name, f"has over {MAX_JSON_BYTES} bytes")
        return data
