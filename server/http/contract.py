"""The generated documents, as files beside the package `generated`."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def read_generated(name: str) -> bytes:
    """A file of `generated/`: `openapi.json`, `openapi.yaml`, `routing.json` or `schemas.json`."""
    return files("generated").joinpath(name).read_bytes()


def read_generated_json(name: str) -> dict[str, Any]:
    """A JSON document of `generated/`."""
    document: dict[str, Any] = json.loads(read_generated(name))
    return document
