"""Text to token ids and back, so that a special token only ever comes from us and never from a text we were given.

Special tokens steer a chat model: whoever can write `<|im_end|>` can end a turn and speak as somebody else. Their text
inside user input is therefore encoded as the ordinary characters that it is made of.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders

from backends.errors import BadRequest, CorruptModel

REPLACEMENT = "\ufffd"
_TAG = re.compile(r"</?[\w|]+>|\[/?[A-Z_]+\]")
"""Added tokens that mark something, unlike those for a run of blanks or an emoji."""


@dataclass(frozen=True, slots=True)
class PromptSegment:
    """A piece of a rendered prompt: the text of exactly one special token or tag of the template's, or other text."""

    text: str
    special: bool = False


class TextTokenizer:
    """A model's tokenizer. Safe to share between threads.

    special_tokens: text of every special token; special_ids: their ids. added_tokens: text of those and of others that
    are cut out of a text before it is tokenized. tags: those of the others that steer a model as special tokens do,
    such as `<tool_call>`. vocab_size: ids run from 0 to this, exclusive.
    longest_token: the most characters that one token stands for; None if that cannot be told.

    Raises (constructor):
        CorruptModel: `file` cannot be read as a tokenizer.
    """

    def __init__(self, file: Path) -> None:
        try:
            # Two objects, because whether special tokens are recognised is a switch on the object, not on the call.
            self._template = Tokenizer.from_file(str(file))
            self._plain = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for whatever it cannot parse
            raise CorruptModel(file.name, f"is not a tokenizer: {error}") from error
        for tokenizer in (self._template, self._plain):
            tokenizer.no_padding()
            tokenizer.no_truncation()
        self._plain.encode_special_tokens = True
        added = self._plain.get_added_tokens_decoder()
        special = {i: t.content for i, t in added.items() if t.special}
        self.special_tokens: tuple[str, ...] = tuple(special.values())
        self.added_tokens: tuple[str, ...] = tuple(t.content for t in added.values())
        self.special_ids = frozenset(special)
        tags = {i: t.content for i, t in added.items() if not t.special and _TAG.fullmatch(t.content)}
        self.tags: tuple[str, ...] = tuple(tags.values())
        self.vocab_size = self._plain.get_vocab_size()
        # Byte-level tokens are written with a character for each byte, and no text goes missing on the way to them.
        self.longest_token: int | None = None
        if self._plain.normalizer is None and isinstance(self._plain.decoder, decoders.ByteLevel):
            self.longest_token = max(map(len, self._plain.get_vocab()), default=None)
        unknown = getattr(self._plain.model, "unk_token", None)
        unknown_id = None if unknown is None else self._plain.token_to_id(unknown)
        if unknown is not None:
            self.longest_token = None
        self._forbidden = self.special_ids.union(tags) - {
            unknown_id
        }  # "unknown" is how some models spell any odd character

    def encode_text(self, text: str) -> list[int]:
        """The ids of `text`, with nothing added around it and no special token and no tag among them.

        Raises:
            BadRequest: the text holds half of a surrogate pair, which is no character.
        """
        return self._encode_plain(_characters(text))

    def encode_prompt(self, segments: Sequence[PromptSegment]) -> list[int]:
        """The ids of a rendered template: its own special tokens and tags as such, everything else as plain text.

        Where no other text spells a special token, that is exactly the encoding of the whole prompt, whatever the
        tokenizer does at the borders of segments.

        Raises:
            BadRequest: the text holds half of a surrogate pair.
        """
        wanted = [self._special_id(segment.text) for segment in segments if segment.special]
        whole = _characters("".join(segment.text for segment in segments))
        ids: list[int] = self._template.encode(whole, add_special_tokens=False).ids
        if [i for i in ids if i in self._forbidden] == wanted:
            return ids
        ids = []
        for segment in segments:
            ids += [self._special_id(segment.text)] if segment.special else self._encode_plain(segment.text)
        return ids

    def encode_for_embedding(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """The ids of each text with the tokens that an encoder expects around it, cut to `max_tokens` in all.

        Raises:
            BadRequest: a text holds half of a surrogate pair.
        """
        around = self._plain.num_special_tokens_to_add(is_pair=False)
        rows = []
        for encoding in self._plain.encode_batch_fast([_characters(t) for t in texts], add_special_tokens=False):
            encoding.truncate(max_tokens - around)
            rows.append(list(self._plain.post_process(encoding).ids))
        return rows

    def spans(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """First character of each token of each text, and the one after its last: int32 [tokens, 2] per text.

        Raises:
            BadRequest: a text holds half of a surrogate pair.
        """
        encodings = self._plain.encode_batch([_characters(text) for text in texts], add_special_tokens=False)
        return [np.array(encoding.offsets, np.int32).reshape(-1, 2) for encoding in encodings]

    def room(self, max_tokens: int) -> int:
        """What is left of `max_tokens` for a text beside the tokens that an encoder expects around it."""
        return max_tokens - int(self._plain.num_special_tokens_to_add(is_pair=False))

    def encode_parts(self, text: str, max_tokens: int, overlap: int) -> list[list[int]]:
        """The ids of a text in pieces of at most `max_tokens`, each with the tokens that an encoder expects around it.

        overlap: tokens of a piece that the next one repeats. Raises BadRequest: half of a surrogate pair.
        """
        around = self._plain.num_special_tokens_to_add(is_pair=False)
        encoding = self._plain.encode(_characters(text), add_special_tokens=False)
        encoding.truncate(max_tokens - around, stride=overlap)
        return [list(self._plain.post_process(part).ids) for part in (encoding, *encoding.overflowing)]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of `ids`; bytes that make no character become U+FFFD."""
        return str(self._plain.decode(ids, skip_special_tokens=skip_special))

    def decode_stream(self, *, skip_special: bool = True, visible: Collection[str] = ()) -> TextStream:
        """A decoder for ids that arrive one by one. visible: special tokens that are shown even if others are not."""
        shown = {self._special_id(text): text for text in visible}
        return TextStream(self, skip_special, shown)

    def token_id(self, text: str) -> int | None:
        """The id of the token that is written exactly `text` in the vocabulary."""
        found: int | None = self._plain.token_to_id(text)
        return found

    def definition(self) -> str:
        """The tokenizer as the JSON that the `tokenizers` library reads."""
        return str(self._plain.to_str())

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = []
        pending = [text]
        while pending:
            piece = pending.pop()
            encoding = self._plain.encode(piece, add_special_tokens=False)
            if self._forbidden.isdisjoint(encoding.ids):
                ids += encoding.ids
                continue
            # A vocabulary can let merges, or a whole word, spell a special token. Cutting the text inside each prevents
            # that; all at once, since one at a time would encode the rest again and again.
            cuts = [0]
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
                if token in self._forbidden:
                    if end - start < 2:
                        raise BadRequest(
                            f"the text holds {piece[start:end]!r}, which this model has only as a special token"
                        )
                    cuts.append(start + 1)
            parts = [piece[a:b] for a, b in pairwise([*cuts, len(piece)])]
            pending += reversed(parts)
        return ids

    def _special_id(self, text: str) -> int:
        found = self.token_id(text)
        if found is None or (found not in self.special_ids and text not in self.tags):
            raise BadRequest(f"the chat template writes {text!r}, which is no special token of this model")
        return found


class TextStream:
    """Text of ids as they come, whole characters only. All that the calls return, joined, is `decode` of all ids."""

    def __init__(self, tokenizer: TextTokenizer, skip_special: bool, visible: Mapping[int, str]) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._visible = visible
        self._ids: list[int] = []
        self._context = 0
        """Leading `_ids` whose text is out already; decoders treat the first token of a text differently."""
        self._shown = ""

    def step(self, token: int) -> str:
        """The text that `token` completes; empty while a character lacks bytes."""
        if token in self._visible:
            return self.finish() + self._visible[token]
        self._ids.append(token)
        text = self._text(self._ids)
        # An incomplete character shows as U+FFFD, at the end. A real one waits too, until the next token or `finish`.
        if text.endswith(REPLACEMENT) or len(text) <= len(self._shown):
            return ""
        new = text[len(self._shown) :]
        self._ids = self._ids[self._context :]
        self._context = len(self._ids)
        self._shown = self._text(self._ids)
        return new

    def finish(self) -> str:
        """What is left when no more ids come: the text of bytes that never became a character."""
        text, shown = self._text(self._ids), self._shown
        self._ids, self._context, self._shown = [], 0, ""
        return text[len(shown) :]

    def _text(self, ids: Iterable[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special=self._skip_special)


def _characters(text: str) -> str:
    """`text`, if all of it can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"the text holds half of a surrogate pair at character {error.start}") from error
    return text
