"""Options of the provider `inline::torch`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from backends.config import Section


class TrainingSettings(Section):
    """Fine-tuning in this server's own job processes."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where it computes; `auto` takes CUDA if there.")
    threads: int = Field(0, ge=0, description="Threads of torch on the CPU; 0 takes the number of cores.")
    checkpoint_roots: tuple[Path, ...] = Field(
        (), description="Directories below which a request may name its `checkpoint_dir`."
    )
    max_tokens: int = Field(1024, ge=16, description="Longest example in tokens; longer ones are refused by row.")
