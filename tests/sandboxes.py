"""Where tests of the code interpreter run: wherever bubblewrap is installed."""

from __future__ import annotations

import shutil

import pytest

needs_bubblewrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt-get install bubblewrap"
)
