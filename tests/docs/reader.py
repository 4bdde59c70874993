"""Somebody who pastes what the pages show into a shell in which `onnxstack` and `python` are what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import ROOT
from tests.servers import RunningServer

DOCUMENTED_URL = "http://127.0.0.1:8321"


@dataclass(frozen=True, slots=True)
class Reader:
    """Works in one directory; programs: the folder that comes first in its PATH."""

    server: RunningServer
    directory: Path
    programs: Path

    def run(self, language: str, text: str) -> subprocess.CompletedProcess[str]:
        """The outcome of a block, whose first failing line fails it."""
        text = text.replace(DOCUMENTED_URL, self.server.url)
        command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ONNXSTACK_")}
        return subprocess.run(
            command,
            cwd=self.directory,
            env={
                **inherited,
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "ONNXSTACK_DATA_DIR": str(self.server.data),
            },
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
