"""Judges of grammars: the default model's tokenizer, and one with Llama's special tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from backends.onnx.config import TOKENIZER_FILE
from tests.backends.onnx.tools.reading import CHATML_TOKENS, LLAMA_TOKENS, Judge, byte_tokenizer


@pytest.fixture(scope="session")
def smollm2(smollm2_dir: Path) -> Judge:
    return Judge(Tokenizer.from_file(str(smollm2_dir / TOKENIZER_FILE)), ["<|im_end|>", "<|endoftext|>"])


@pytest.fixture(scope="session")
def llama() -> Judge:
    return Judge(byte_tokenizer(LLAMA_TOKENS), ["<|eot_id|>", "<|eom_id|>"])


@pytest.fixture(scope="session")
def chatml() -> Judge:
    """Tool call tags are special tokens."""
    return Judge(byte_tokenizer(CHATML_TOKENS), ["<|im_end|>"])
