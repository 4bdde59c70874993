"""The virtual environment of the reference server, whose dependencies are not ours."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
REQUIREMENTS = FOLDER / "requirements.txt"
CONSTRAINTS = FOLDER / "constraints.txt"


def environment(folder: Path) -> Path:
    """The interpreter of the environment in `folder`, made when it is not there or the requirements have changed.

    pip reads the user's own settings, so an index of their choice serves. Takes minutes the first time.

    Raises:
        subprocess.CalledProcessError: pip could not install; what it said stands on standard error.
    """
    python = folder / "bin" / "python"
    mark = folder / "installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + CONSTRAINTS.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS)]
    subprocess.run([*command, "--constraint", str(CONSTRAINTS)], check=True)
    mark.write_text(wanted)
    return python
