"""`config.json` of a model directory: what the engine must know of a graph before it opens it.

A model directory holds `model.onnx`, `model.onnx.data`, `config.json`, `tokenizer.json` (`ngrams.json` where the graph
takes counts of n-grams) and, for chat models, `chat_template.jinja`. `backends/onnx/convert` writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from backends.errors import CorruptModel

CONFIG_FILE = "config.json"
MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
TOKENIZER_FILE = "tokenizer.json"
NGRAMS_FILE = "ngrams.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"

Precision = Literal["int8", "int4", "fp16", "fp32"]
KvDtype = Literal["float32", "float16"]
Pooling = Literal["mean", "cls"]


class SamplingDefaults(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the model's authors recommend (`generation_config.json`); None where they say nothing."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None


class DecoderConfig(msgspec.Struct, frozen=True, tag_field="kind", tag="decoder", forbid_unknown_fields=True):
    """A causal language model with a shared-buffer KV cache; `convert_decoder` documents the graph.

    architecture: family, as Hugging Face names it ("llama", "qwen2"). hidden: width of the residual stream. vocab:
    columns of `logits`, which may exceed the tokenizer's size. context_length: tokens, prompt and answer together.
    kv_dtype: element type of `past.*` and `present.*`. kv_bytes_per_token: bytes of KV cache that one token takes over
    all layers.
    eos_token_ids: every token that ends an answer, ascending. bos_token_id: first token of a text when `add_bos`.
    pad_token_id: fills rows of unequal length, None if the model names none.
    """

    architecture: str
    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocab: int
    context_length: int
    precision: Precision
    kv_dtype: KvDtype
    kv_bytes_per_token: int
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None = None
    add_bos: bool = False
    pad_token_id: int | None = None
    sampling: SamplingDefaults = SamplingDefaults()


class EncoderConfig(msgspec.Struct, frozen=True, tag_field="kind", tag="encoder", forbid_unknown_fields=True):
    """A text encoder whose graph ends in one unit vector per text; `convert_encoder` documents the graph.

    max_tokens: longest text, with the tokens that the tokenizer adds. pooling: how token states become one vector.
    """

    architecture: str
    layers: int
    hidden: int
    vocab: int
    precision: Precision
    embedding_dimension: int
    max_tokens: int
    pooling: Pooling
    pad_token_id: int = 0


class ClassifierConfig(msgspec.Struct, frozen=True, tag_field="kind", tag="classifier", forbid_unknown_fields=True):
    """A text encoder with a classification head; `convert_classifier` documents the graph.

    labels: one per column of the graph's output. benign: the label of a text that nobody need fear. max_tokens: longest
    piece of a text that is looked at at once, with the tokens that the tokenizer adds.
    """

    architecture: str
    layers: int
    hidden: int
    vocab: int
    precision: Precision
    labels: tuple[str, ...]
    benign: str
    max_tokens: int
    pad_token_id: int = 0


class NgramClassifierConfig(
    msgspec.Struct, frozen=True, tag_field="kind", tag="ngram_classifier", forbid_unknown_fields=True
):
    """A linear classifier over counts of n-grams; `convert_ngram_classifier` documents the graph.

    labels, benign: as in `ClassifierConfig`. window_words: a longer text is also looked at in windows of so many words,
    each `window_stride` words after the one before. window_score: least probability, 0..1, of all labels but `benign`
    at which a window speaks for its text.
    """

    architecture: str
    precision: Precision
    labels: tuple[str, ...]
    benign: str
    window_words: int
    window_stride: int
    window_score: float


AnyClassifierConfig = ClassifierConfig | NgramClassifierConfig
ModelConfig = DecoderConfig | EncoderConfig | ClassifierConfig | NgramClassifierConfig


def read_model_config(directory: Path) -> ModelConfig:
    """The configuration of the model in `directory`.

    Raises:
        CorruptModel: `config.json` is missing or not what this module describes.
    """
    try:
        config: ModelConfig = msgspec.json.decode((directory / CONFIG_FILE).read_bytes(), type=ModelConfig)
    except OSError as error:
        raise CorruptModel(CONFIG_FILE, f"cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptModel(CONFIG_FILE, str(error)) from error
    return config


def write_model_config(directory: Path, config: ModelConfig) -> None:
    """Write `config` as the `config.json` of `directory`."""
    (directory / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
