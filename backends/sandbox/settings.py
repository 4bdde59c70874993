"""Options of `inline::code-interpreter`."""

from __future__ import annotations

from pydantic import Field

from backends.config import Section


class CodeInterpreterSettings(Section):
    """What code may use, and how much of it."""

    python: str = Field(
        "",
        description="Path of the interpreter of an environment whose packages code may import; empty takes the "
        "server's Python, with `packages` alone.",
    )
    packages: tuple[str, ...] = Field(
        ("numpy", "pandas", "matplotlib"),
        description="Distributions of the server's environment that code may import, with what they need; those that "
        "are not installed are left out.",
    )
    timeout_s: float = Field(30.0, gt=0, le=3600, description="Seconds that a call may take.")
    memory_mb: int = Field(1024, ge=64, description="Megabytes of address space of the process that runs the code.")
    disk_mb: int = Field(128, ge=1, description="Megabytes of its file system, which lies in memory.")
    max_threads: int = Field(256, ge=1, description="Threads of the code; not counted where the server runs as root.")
    max_output_kb: int = Field(64, ge=1, description="Kilobytes of standard output, and of errors, that come back.")
    max_files: int = Field(20, ge=0, description="Files that come back.")
    max_files_mb: int = Field(16, ge=1, description="Megabytes that the files which come back have together.")
    at_once: int = Field(4, ge=1, description="Calls that run at the same time, of all workers together.")
    wait_s: float = Field(60.0, ge=0, description="Seconds that a call may wait for its turn.")
