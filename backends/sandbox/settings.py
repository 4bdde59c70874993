"""Options of the provider `inline::code-interpreter`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from backends.config import Section


class SandboxSettings(Section):
    """Limits of one run, and the Python that runs."""

    python: Path | None = Field(
        None,
        description="A Python to run code with, such as that of a virtual environment with numpy and matplotlib; empty "
        "takes the one that the server runs on, without the server's packages.",
    )
    seconds: float = Field(30.0, gt=0, description="Wall time of one run.")
    cpu_seconds: int = Field(20, ge=1, description="CPU time of one run.")
    memory_mb: int = Field(2048, ge=64, description="Memory of one process of a run.")
    processes: int = Field(64, ge=1, description="Processes and threads of one run.")
    disk_mb: int = Field(100, ge=1, description="Megabytes of files that one run may have.")
    output_chars: int = Field(100_000, ge=1000, description="Characters of output that are kept.")
    files: int = Field(20, ge=0, description="Files of one run that are given back.")
    at_once: int = Field(4, ge=1, description="Runs at once in each worker; others wait.")
