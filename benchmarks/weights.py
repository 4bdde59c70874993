"""The original weights behind our converted models, for the peers: the same packages the model store takes."""

from __future__ import annotations

from pathlib import Path
