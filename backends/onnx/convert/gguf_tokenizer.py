"""The `tokenizers.Tokenizer` that a GGUF file's metadata describes, token for token."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.gguf_file import GgufFile

CONTROL, USER_DEFINED = 3, 4

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace("{1,3}", "")
_GPT2_OPEN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"

LLAMA3_NAMES = frozenset({"llama-bpe", "llama3", "llama-v3"})
QWEN2_NAMES = frozenset({"qwen2", "deepseek-r1-qwen"})
SMOLLM_NAMES = frozenset({"smollm", "starcoder", "refact", "command-r"})


def build_tokenizer(gguf: GgufFile) -> Tokenizer:
    """The tokenizer of `gguf`, with control tokens as special tokens and nothing added around a text.

    Sources of the splitting rules: the models' `tokenizer.json` files; for "default", llama.cpp's `llama-vocab.cpp`.

    Raises:
        Unsupported: a tokenizer model other than byte-level BPE ("gpt2"), or a splitting rule not known here.
        CorruptModel: the vocabulary contradicts itself.
    """
    model = gguf.text("tokenizer.ggml.model")
    if model != "gpt2":
        raise Unsupported(f"tokenizer {model!r} of {gguf.name}; byte-level BPE ('gpt2') can be converted")
    tokens, merges = gguf.texts("tokenizer.ggml.tokens"), gguf.texts("tokenizer.ggml.merges")
    types = gguf.integers("tokenizer.ggml.token_type")
    if not tokens or merges is None or types is None or len(types) != len(tokens):
        raise CorruptModel(gguf.name, "the tokenizer needs tokens, merges and one token type for each token")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise CorruptModel(gguf.name, "the tokenizer's vocabulary names a token twice")
    name = gguf.text("tokenizer.ggml.pre") or "default"
    pairs = []
    for merge in merges:
        left, space, right = merge.partition(" ")
        # The word of a merge may itself begin with a space only as "Ġ", so the first space always separates.
        if not space or left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise CorruptModel(gguf.name, f"merge {merge[:80]!r} names tokens that are not in the vocabulary")
        pairs.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=name in LLAMA3_NAMES))
    tokenizer.pre_tokenizer = _pre_tokenizer(name, gguf.name)
    if name in QWEN2_NAMES:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [
            AddedToken(t, special=special, normalized=False) for t, k in zip(tokens, types, strict=True) if k == kind
        ]
        if special:
            tokenizer.add_special_tokens(added)
        else:
            tokenizer.add_tokens(added)
    return tokenizer


def _pre_tokenizer(name: str, file: str) -> pre_tokenizers.PreTokenizer:
    def split(pattern: str) -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.Split(Regex(pattern), "isolated")

    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in SMOLLM_NAMES:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    if name in LLAMA3_NAMES:
        return pre_tokenizers.Sequence([split(_LLAMA3), to_bytes])
    if name in QWEN2_NAMES:
        return pre_tokenizers.Sequence([split(_QWEN2), to_bytes])
    if name == "gpt-2":
        return gpt2
    if name == "default":
        parts = [r"[\p{P}\$\+<=>\^~\|]+", _GPT2_OPEN, r"\p{N}+", "[0-9][0-9][0-9]"]
        return pre_tokenizers.Sequence([*map(split, parts), to_bytes])
    known = ", ".join(sorted(SMOLLM_NAMES | LLAMA3_NAMES | QWEN2_NAMES | {"gpt-2", "default"}))
    raise Unsupported(f"splitting rule {name!r} of the tokenizer of {file}; known are {known}")
