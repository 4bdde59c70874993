"""Make `sentencepiece.json`: what transformers makes of awkward texts with the vocabulary of `sentencepiece.py`.

Run in the tox env `export`, from the root of the checkout (`test_transformers.py` there says when it is out of date):

    tox exec -e export -- python -m tests.backends.onnx.convert.golden.make_sentencepiece

For each kind of tokenizer the texts with their ids and the text that these decode to. "llama" adds a space where a text
begins, "unprefixed" does not, and in "phi3" a special token swallows the white space behind it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.backends.onnx.convert import sentencepiece

OUT = Path(__file__).with_name("sentencepiece.json")
KINDS: dict[str, dict[str, Any]] = {"llama": {}, "unprefixed": {"add_prefix_space": False}, "phi3": {}}
TEXTS = (
    "", " ", "  ", "\n", "\t", "\r\n", " \n \n", "a", " a", "a ", "the", " the", "   the", "the cat sat on the mat",
    "the  cats\nwere   thinking", "thethethe", "athe", "aaaa", "aaaaaaa", "bbbb abab", "hello, world!", "12345 2024",
    "caf\u00e9 na\u00efve cafe\u0301", "stra\u00dfe \u00fcber", "\u4f60\u597d\u4e16\u754c", "\u4f60 \u597d!",
    "\U0001f642\U0001f469\u200d\U0001f469\u200d\U0001f467", "\u0410\u0411\u0412 \u0645\u0631\u062d\u0628\u0627",
    "\u2581the\u2581", "\x00\x01", "\ufffd", "\u00a0the\u3000cat", "<s>", "<s>the</s>", "<s> the </s> cat",
    "</s>\n\nthe", "<unk>the", "<0x41>", "<|turn|>the", "<|turn|>\nthe", "<|turn|> \n the",
    "the <|turn|> cat<|turn|>", "the<|turn|><|turn|> cat", "<|turn", "[TOOL]", "the [TOOL]cat",
    "[TOOL] the[TOOL]\ncat", "[TOOL", "was hello " * 20,
)  # fmt: skip


def load(kind: str) -> Any:
    """The tokenizer of transformers from a `tokenizer.model`."""
    from transformers import AutoTokenizer

    settings = {
        "tokenizer_class": "LlamaTokenizer", "legacy": True, "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", **KINDS[kind],
    }  # fmt: skip
    if kind == "phi3":
        swallowing = {"rstrip": True, "lstrip": False, "single_word": False, "normalized": False, "special": True}
        ids = {piece: i for i, (piece, _, _) in enumerate(sentencepiece.pieces())}
        settings["added_tokens_decoder"] = {
            str(ids[token]): {"content": token, **swallowing} for token in ("</s>", sentencepiece.TURN)
        }
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        sentencepiece.write_model(folder / "tokenizer.model")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return AutoTokenizer.from_pretrained(folder)


def golden() -> dict[str, list[dict[str, Any]]]:
    """Everything that belongs into the file."""
    made: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS:
        tokenizer = load(kind)
        made[kind] = [
            {
                "text": text,
                "ids": (ids := tokenizer.encode(text, add_special_tokens=False)),
                "back": tokenizer.decode(ids),
            }
            for text in TEXTS
        ]
    return made


if __name__ == "__main__":
    parts = (
        f"{json.dumps(kind)}: [\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]"
        for kind, rows in golden().items()
    )
    OUT.write_text("{\n" + ",\n".join(parts) + "\n}\n")
