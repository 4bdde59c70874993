"""The tokenizer of a GGUF file whose model is "llama": SentencePiece's byte-pair encoding with a score for each piece.

SentencePiece joins the neighbours whose piece has the best score until none are left, and spells what has no piece in
bytes. The `tokenizers` library does the same by a list of pairs in the order of their pieces' scores. Spaces are as in
transformers' LlamaTokenizer: every text, and what follows a special token, begins with one, which is added where it is
missing. SentencePiece: Kudo and Richardson, arXiv:1808.06226.
"""

from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.gguf_file import GgufFile

NORMAL, UNKNOWN = 1, 2
SPACE = "\u2581"
"""How pieces write a space."""


def sentencepiece_tokenizer(gguf: GgufFile, vocabulary: dict[str, int], types: list[int]) -> Tokenizer:
    """The tokenizer without its special tokens. types: of each token in the order of `vocabulary`.

    Raises:
        CorruptModel: the scores do not belong to the vocabulary, or a byte has no token. Unsupported: a normalisation.
    """
    for key in ("precompiled_charsmap", "remove_extra_whitespaces"):
        value = gguf.metadata.get(f"tokenizer.ggml.{key}")
        if value is not None and np.any(value):
            raise Unsupported(f"{key} of the tokenizer of {gguf.name}")
    scores = gguf.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, np.ndarray) or len(scores) != len(vocabulary) or not np.isfinite(scores).all():
        raise CorruptModel(gguf.name, "the tokenizer needs one finite score for each token")
    if missing := [f"<0x{byte:02X}>" for byte in range(256) if f"<0x{byte:02X}>" not in vocabulary]:
        raise CorruptModel(gguf.name, f"the tokenizer has no token for the byte {missing[0]}")
    unknown = next((token for token, kind in zip(vocabulary, types, strict=True) if kind == UNKNOWN), None)
    normal = {token: scores[i] for (token, i), kind in zip(vocabulary.items(), types, strict=True) if kind == NORMAL}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(normal, vocabulary),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefixed = gguf.flag("tokenizer.ggml.add_space_prefix") is not False
    scheme = "always" if prefixed else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=False)
    first_space = [decoders.Strip(content=" ", left=1, right=0)] if prefixed else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *first_space]
    )
    return tokenizer


def _merges(normal: dict[str, float], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to join two pieces to a third, best piece first.

    Of the ways to the same piece the one with the older parts comes first, as in Hugging Face's conversion.
    """
    ranked = [
        (-score, ids[piece[:cut]], ids[piece[cut:]], piece[:cut], piece[cut:])
        for piece, score in normal.items()
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    ]
    return [(left, right) for *_, left, right in sorted(ranked)]
