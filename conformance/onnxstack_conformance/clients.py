"""The official clients as drivers: an interpreter for each version, and what came of `client_journey.py` under it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from onnxstack_conformance.stack import Stack

VERSIONS = ("0.1.0", "0.1.1")
JOURNEY = Path(__file__).with_name("client_journey.py")


def interpreter(version: str, given: str | None) -> Path:
    """The interpreter of an environment that has this version; one is made, once, where none was given.

    Raises:
        RuntimeError: it cannot be made, as without a way to PyPI.
    """
    if given is not None:
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "onnxstack-conformance"
    home = cache / f"llama-stack-client-{version}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (home / "complete").exists():
        venv.create(home, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "-q", f"llama-stack-client=={version}"]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
        if finished.returncode:
            raise RuntimeError(f"pip cannot install llama-stack-client {version}: {finished.stderr[-300:]}")
        (home / "complete").touch()
    return python


def journey(stack: Stack, python: Path) -> dict[str, list[Any]]:
    """The outcome of each check, its message, and the request that failed.

    Raises:
        RuntimeError: the program did not come to its end.
    """
    llm, embedder = stack.model("llm"), stack.model("embedding")
    asked = {
        "url": stack.url,
        "headers": dict(stack.options.credentials[0]),
        "llm": llm and llm["identifier"],
        "embedder": embedder and embedder["identifier"],
        "run": stack.run,
        "read_only": stack.options.read_only,
        "timeout_s": stack.options.timeout_s,
    }
    finished = subprocess.run(  # noqa: S603 - no shell
        [str(python), "-I", str(JOURNEY)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=stack.options.timeout_s * 10,
    )
    if finished.returncode:
        raise RuntimeError(f"{JOURNEY.name} under {python} ended with {finished.returncode}: {finished.stderr[-2000:]}")
    outcomes: dict[str, list[Any]] = json.loads(finished.stdout.splitlines()[-1])
    return outcomes
