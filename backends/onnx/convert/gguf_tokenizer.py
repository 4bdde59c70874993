"""The `tokenizers.Tokenizer` that a GGUF file's metadata describes, token for token."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.gguf_file import GgufFile
from backends.onnx.convert.gguf_sentencepiece import UNKNOWN, sentencepiece_tokenizer

CONTROL, USER_DEFINED = 3, 4
BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace("{1,3}", "")
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ENDING"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*ENDING"
    r"|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = _CASED.replace("ENDING", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?").replace("DIGITS", "{1,3}")
_TEKKEN = _CASED.replace("ENDING", "").replace("DIGITS", "")
_GPT2_OPEN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"

LLAMA3_NAMES = frozenset({"llama-bpe", "llama3", "llama-v3"})
QWEN2_NAMES = frozenset({"qwen2", "deepseek-r1-qwen"})
GPT4O_NAMES = frozenset({"gpt-4o", "llama4"})
TEKKEN_NAMES = frozenset({"tekken"})
CL100K_NAMES = frozenset({"dbrx"})
"""The rule of Llama 3 without its words that need no merges; Phi-4 has it."""
SMOLLM_NAMES = frozenset({"smollm", "starcoder", "refact", "command-r"})

_PATTERNS = {
    LLAMA3_NAMES: _LLAMA3, CL100K_NAMES: _LLAMA3, QWEN2_NAMES: _QWEN2, GPT4O_NAMES: _GPT4O, TEKKEN_NAMES: _TEKKEN,
}  # fmt: skip


def build_tokenizer(gguf: GgufFile) -> Tokenizer:
    """The tokenizer of `gguf`, with control tokens as special tokens and nothing added around a text.

    Sources of the splitting rules: the models' `tokenizer.json` files; for "default", llama.cpp's `llama-vocab.cpp`.

    Raises:
        Unsupported: a tokenizer model that is neither byte-level BPE ("gpt2") nor SentencePiece's BPE ("llama"), or a
        splitting rule not known here. CorruptModel: the vocabulary contradicts itself.
    """
    model = gguf.text("tokenizer.ggml.model")
    if model not in (BYTE_LEVEL, SENTENCEPIECE):
        raise Unsupported(
            f"tokenizer {model!r} of {gguf.name}; byte-level BPE ('gpt2') and SentencePiece ('llama') can be converted"
        )
    tokens, types = gguf.texts("tokenizer.ggml.tokens"), gguf.integers("tokenizer.ggml.token_type")
    if not tokens or types is None or len(types) != len(tokens):
        raise CorruptModel(gguf.name, "the tokenizer needs tokens and one token type for each token")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise CorruptModel(gguf.name, "the tokenizer's vocabulary names a token twice")
    kinds = types.tolist()
    if model == SENTENCEPIECE:
        tokenizer = sentencepiece_tokenizer(gguf, vocabulary, kinds)
        special = [t for t, kind in zip(tokens, kinds, strict=True) if kind in (CONTROL, UNKNOWN)]
    else:
        tokenizer = _byte_level(gguf, vocabulary)
        special = [t for t, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    # Phi-3's special tokens swallow the white space behind them. A GGUF file does not say so; llama.cpp too knows it.
    swallow = model == SENTENCEPIECE and gguf.text("general.architecture") == "phi3"
    ordinary = ("<unk>", "<s>", "<|endoftext|>")
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False, rstrip=swallow and t not in ordinary) for t in special]
    )
    whole = [t for t, kind in zip(tokens, kinds, strict=True) if kind == USER_DEFINED]
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in whole])
    return tokenizer


def _byte_level(gguf: GgufFile, vocabulary: dict[str, int]) -> Tokenizer:
    merges = gguf.texts("tokenizer.ggml.merges")
    if merges is None:
        raise CorruptModel(gguf.name, "the tokenizer needs merges")
    name = gguf.text("tokenizer.ggml.pre") or "default"
    pairs = []
    for merge in merges:
        left, space, right = merge.partition(" ")
        # The word of a merge may itself begin with a space only as "Ġ", so the first space always separates.
        if not space or left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise CorruptModel(gguf.name, f"merge {merge[:80]!r} names tokens that are not in the vocabulary")
        pairs.append((left, right))
    ignore_merges = name in LLAMA3_NAMES | TEKKEN_NAMES
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = _pre_tokenizer(name, gguf.name)
    if name in QWEN2_NAMES:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pre_tokenizer(name: str, file: str) -> pre_tokenizers.PreTokenizer:
    def split(pattern: str) -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.Split(Regex(pattern), "isolated")

    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in SMOLLM_NAMES:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    for names, pattern in _PATTERNS.items():
        if name in names:
            return pre_tokenizers.Sequence([split(pattern), to_bytes])
    if name == "gpt-2":
        return gpt2
    if name == "default":
        parts = [r"[\p{P}\$\+<=>\^~\|]+", _GPT2_OPEN, r"\p{N}+", "[0-9][0-9][0-9]"]
        return pre_tokenizers.Sequence([*map(split, parts), to_bytes])
    known = ", ".join(sorted(SMOLLM_NAMES.union({"gpt-2", "default"}, *_PATTERNS)))
    raise Unsupported(f"splitting rule {name!r} of the tokenizer of {file}; known are {known}")
