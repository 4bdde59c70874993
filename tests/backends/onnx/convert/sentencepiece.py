"""A small SentencePiece vocabulary, as the GGUF file of a tokenizer and as SentencePiece's own `tokenizer.model`."""

from __future__ import annotations

import struct
from collections import Counter
from itertools import pairwise
from pathlib import Path

import gguf

CORPUS = (
    "the cat sat on the mat and the dog ate the hat . what the other cats were thinking , nobody there could say , "
    "for they thought in whiskers and in other things than words . hello world hello there 12 123 1234 2024 caf\u00e9 "
    "na\u00efve \u4f60\u597d \u4e16\u754c \u4f60\u597d aaaa aa aaa bbbb \u00fcber stra\u00dfe"
)
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
USER_PIECE, TURN = "[TOOL]", "<|turn|>"
SPACE = "\u2581"


def pieces(merges: int = 150) -> list[tuple[str, float, int]]:
    """Piece, score and type of every token: byte-pair encoding of `CORPUS`, the more frequent pair the better score."""
    words = Counter(SPACE + word for word in CORPUS.split())
    spelled = {word: list(word) for word in words}
    made: list[str] = []
    for _ in range(merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in spelled.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        for parts in spelled.values():
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == best:
                    parts[i : i + 2] = ["".join(best)]
                i += 1
        made.append("".join(best))
    characters = sorted(set(CORPUS.replace(" ", SPACE)))
    normal = list(dict.fromkeys([*made, *characters]))
    return [
        ("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL),
        *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)),
        *((piece, float(-rank), NORMAL) for rank, piece in enumerate(normal)),
        (USER_PIECE, 0.0, USER_DEFINED), (TURN, 0.0, CONTROL),
    ]  # fmt: skip


def write_gguf(path: Path, *, prefix: bool = True, architecture: str = "llama") -> Path:
    """A GGUF file with the tokenizer and no tensors."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece for piece, _, _ in pieces()])
    writer.add_token_scores([score for _, score, _ in pieces()])
    writer.add_token_types([kind for _, _, kind in pieces()])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(prefix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def write_model(path: Path) -> Path:
    """The protocol buffer that SentencePiece writes: pieces (1), trainer (2) and normaliser (3) settings."""
    body = b""
    for piece, score, kind in pieces():
        text = piece.encode()
        entry = _field(1, text) + b"\x15" + struct.pack("<f", score) + b"\x18" + _varint(kind)
        body += _field(1, entry)
    trainer = b"\x18" + _varint(2) + _varint(35 << 3) + b"\x01"  # model_type BPE, byte_fallback
    normaliser = (
        _field(1, b"identity") + _varint(3 << 3) + b"\x01" + _varint(4 << 3) + b"\x00" + _varint(5 << 3) + b"\x01"
    )
    path.write_bytes(body + _field(2, trainer) + _field(3, normaliser))
    return path


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])
