"""What surrounds the weights of a decoder: its tokenizer, chat template, end tokens and recommended sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from backends.errors import CorruptModel
from backends.onnx.config import CHAT_TEMPLATE_FILE, TOKENIZER_FILE, DecoderConfig, SamplingDefaults, read_model_config
from backends.onnx.convert.folder import ModelFolder
from backends.onnx.convert.gguf_file import GgufFile
from backends.onnx.convert.gguf_tokenizer import LLAMA3_NAMES, SENTENCEPIECE, build_tokenizer

END_TOKENS = (
    "<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|end_of_turn|>",
    "<end_of_turn>", "<|eos|>", "</s>", "<EOT>", "[EOT]",
)  # fmt: skip
"""Special tokens that end an answer in some Llama fine-tune. Files name one of them and forget the others."""


@dataclass(frozen=True, slots=True)
class ChatFiles:
    """template: Jinja source, None for a base model. The ids are as in `DecoderConfig`."""

    tokenizer: Tokenizer
    template: str | None
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    add_bos: bool
    pad_token_id: int | None
    sampling: SamplingDefaults


def from_gguf(file: GgufFile) -> ChatFiles:
    """Read them from a GGUF file's metadata. Raises Unsupported, CorruptModel."""
    tokenizer = build_tokenizer(file)

    def token(name: str) -> int | None:
        return _in_vocabulary(file.integer(f"tokenizer.ggml.{name}_token_id"), tokenizer, file.name)

    bos = token("bos")
    add_bos = file.flag("tokenizer.ggml.add_bos_token")
    if add_bos is None:  # older files of Llama do not say it; the models were trained with it
        add_bos = file.text("tokenizer.ggml.pre") in LLAMA3_NAMES or file.text("tokenizer.ggml.model") == SENTENCEPIECE
    return ChatFiles(
        tokenizer=tokenizer,
        template=file.text("tokenizer.chat_template"),
        eos_token_ids=_ends(tokenizer, [token("eos"), token("eot"), token("eom")]),
        bos_token_id=bos,
        add_bos=add_bos and bos is not None,
        pad_token_id=token("padding"),
        sampling=SamplingDefaults(),
    )


def from_model(directory: Path) -> ChatFiles:
    """Read them from a model directory of ours. Raises CorruptModel."""
    config = read_model_config(directory)
    if not isinstance(config, DecoderConfig):
        raise CorruptModel(directory.name, "is no decoder")
    template = directory / CHAT_TEMPLATE_FILE
    return ChatFiles(
        tokenizer=Tokenizer.from_file(str(directory / TOKENIZER_FILE)),
        template=template.read_text("utf-8") if template.is_file() else None,
        eos_token_ids=config.eos_token_ids,
        bos_token_id=config.bos_token_id,
        add_bos=config.add_bos,
        pad_token_id=config.pad_token_id,
        sampling=config.sampling,
    )


def from_folder(folder: ModelFolder) -> ChatFiles:
    """Read them from a Hugging Face folder. Raises CorruptModel."""
    generation = folder.json("generation_config.json") if folder.has("generation_config.json") else {}
    return from_tokenizer_files(
        folder, {"generation_config.json": generation, "config.json": folder.json("config.json")}
    )


def from_tokenizer_files(folder: ModelFolder, configs: dict[str, dict[str, Any]]) -> ChatFiles:
    """Read them from `tokenizer.json` and its companions, and from `configs`, by file name.

    Of the configurations the first one's sampling counts, every one's ends, and of other tokens the first that is
    named. Raises CorruptModel.
    """
    settings = folder.json("tokenizer_config.json") if folder.has("tokenizer_config.json") else {}
    tokenizer = folder_tokenizer(folder)

    def ids(source: dict[str, Any], key: str, file: str) -> list[int | None]:
        value = source.get(key)
        values = value if isinstance(value, list) else [value]
        if not all(v is None or (isinstance(v, int) and not isinstance(v, bool)) for v in values):
            raise CorruptModel(file, f"{key} must be a token id or a list of them")
        return [_in_vocabulary(v, tokenizer, file) for v in values]

    def first(key: str) -> int | None:
        return next((i for file, config in configs.items() for i in ids(config, key, file) if i is not None), None)

    named_end = tokenizer.token_to_id(_token_text(settings.get("eos_token")))
    ends = [i for file, config in configs.items() for i in ids(config, "eos_token_id", file)]
    bos = tokenizer.token_to_id(_token_text(settings.get("bos_token")))
    bos = first("bos_token_id") if bos is None else bos
    return ChatFiles(
        tokenizer=tokenizer,
        template=_folder_template(folder, settings),
        eos_token_ids=_ends(tokenizer, [named_end, *ends]),
        bos_token_id=bos,
        add_bos=bos is not None and tokenizer.encode("a").ids[:1] == [bos],
        pad_token_id=first("pad_token_id"),
        sampling=_sampling(next(iter(configs.values()))),
    )


def folder_tokenizer(folder: ModelFolder) -> Tokenizer:
    """The folder's tokenizer, without the padding and truncation that training left in it."""
    try:
        tokenizer = Tokenizer.from_file(str(folder.path(TOKENIZER_FILE)))
    except CorruptModel:
        raise
    except Exception as error:  # the library raises bare Exception for whatever it cannot parse
        raise CorruptModel(TOKENIZER_FILE, f"is not a tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _folder_template(folder: ModelFolder, settings: dict[str, Any]) -> str | None:
    if folder.has("chat_template.jinja"):
        return folder.text("chat_template.jinja")
    template = settings.get("chat_template")
    if isinstance(template, list):  # named templates
        template = next(
            (t.get("template") for t in template if isinstance(t, dict) and t.get("name") == "default"), None
        )
    if template is not None and not isinstance(template, str):
        raise CorruptModel("tokenizer_config.json", "chat_template must be a string or a list of named ones")
    return template


def _ends(tokenizer: Tokenizer, named: list[int | None]) -> tuple[int, ...]:
    special = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return tuple(sorted({i for i in named if i is not None} | {special[t] for t in END_TOKENS if t in special}))


def _in_vocabulary(token: int | None, tokenizer: Tokenizer, file: str) -> int | None:
    if token is not None and (token < 0 or tokenizer.id_to_token(token) is None):
        raise CorruptModel(file, f"token id {token} is not in the vocabulary")
    return token


def _token_text(value: object) -> str:
    """The text of a token in tokenizer_config.json, which may be wrapped in an object; empty if there is none."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _sampling(generation: dict[str, Any]) -> SamplingDefaults:
    def number(key: str) -> float | None:
        value = generation.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            return None
        return float(value)

    top_k = number("top_k")
    return SamplingDefaults(
        temperature=number("temperature"),
        top_p=number("top_p"),
        top_k=None if top_k is None else int(top_k),
        repetition_penalty=number("repetition_penalty"),
    )
