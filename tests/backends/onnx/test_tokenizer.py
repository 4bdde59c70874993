"""Text to tokens and back."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from backends.errors import BadRequest, CorruptModel
from backends.onnx.config import TOKENIZER_FILE
from backends.onnx.tokenizer import PromptSegment, TextTokenizer

GOLDEN: list[dict[str, Any]] = json.loads((Path(__file__).parent / "convert" / "golden" / "tokens.json").read_text())[
    "smollm"
]
AWKWARD = [row["text"] for row in GOLDEN]


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir: Path) -> TextTokenizer:
    return TextTokenizer(smollm2_dir / TOKENIZER_FILE)


@pytest.fixture(scope="module")
def encoder_tokenizer(minilm_dir: Path) -> TextTokenizer:
    return TextTokenizer(minilm_dir / TOKENIZER_FILE)


def saved(tokenizer: Tokenizer, tmp_path: Path) -> TextTokenizer:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return TextTokenizer(tmp_path / "tokenizer.json")


def test_text_is_encoded_as_llama_cpp_does_without_special_tokens(tokenizer: TextTokenizer) -> None:
    for row in GOLDEN:
        assert tokenizer.encode_text(row["text"]) == row["plain"], row["text"]


def test_no_text_ever_becomes_a_special_token(tokenizer: TextTokenizer) -> None:
    draw = random.Random(0)
    pieces = [*tokenizer.special_tokens, *AWKWARD, "<", "|", ">", "<|", "|>", "im_", "end"]
    for _ in range(300):
        text = "".join(draw.choices(pieces, k=draw.randrange(1, 8)))
        ids = tokenizer.encode_text(text)
        assert tokenizer.special_ids.isdisjoint(ids)
        assert tokenizer.decode(ids) == text


def test_added_tokens_are_special_ones_and_others(tmp_path: Path) -> None:
    made = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    made.add_special_tokens(["<|stop|>"])
    made.add_tokens([AddedToken("<tool_call>", special=False)])
    tokenizer = saved(made, tmp_path)
    assert tokenizer.special_tokens == ("<|stop|>",)
    assert tokenizer.added_tokens == ("<|stop|>", "<tool_call>")


def test_a_vocabulary_that_lets_a_plain_word_spell_a_special_token_is_outwitted(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "stop"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken("stop", special=True, normalized=False)])
    tokenizer = saved(made, tmp_path)
    for text in ("stop", "stop stop", "stop,stop"):
        ids = tokenizer.encode_text(text)
        assert tokenizer.special_ids.isdisjoint(ids)
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode_prompt([PromptSegment("stop"), PromptSegment("stop", special=True)])[-1] == 256
    often = "stop " * 5000
    assert tokenizer.encode_text(often) == tokenizer.encode_text("stop ") * 5000


def test_how_long_a_token_may_be_is_known_only_where_every_character_counts(
    tokenizer: TextTokenizer, encoder_tokenizer: TextTokenizer
) -> None:
    assert tokenizer.longest_token == 81
    assert encoder_tokenizer.longest_token is None


def test_user_content_may_spell_a_special_token_thousands_of_times(tokenizer: TextTokenizer) -> None:
    text = "<|im_end|>" * 5000
    ids = tokenizer.encode_prompt([PromptSegment("<|im_start|>", special=True), PromptSegment(text)])
    assert tokenizer.special_ids.isdisjoint(ids[1:])
    assert tokenizer.decode(ids[1:]) == text


def test_a_prompt_without_forged_tokens_has_the_ids_of_the_whole_text(
    tokenizer: TextTokenizer, smollm2_dir: Path
) -> None:
    whole = Tokenizer.from_file(str(smollm2_dir / TOKENIZER_FILE))
    for text in AWKWARD:
        if any(special in text for special in tokenizer.special_tokens):
            continue
        segments = [
            PromptSegment("<|im_start|>", special=True),
            PromptSegment("user\n" + text),
            PromptSegment("<|im_end|>", special=True),
            PromptSegment("\n"),
        ]
        assert tokenizer.encode_prompt(segments) == whole.encode("".join(s.text for s in segments)).ids


def test_forged_tokens_in_a_prompt_stay_text(tokenizer: TextTokenizer) -> None:
    start, end = tokenizer.token_id("<|im_start|>"), tokenizer.token_id("<|im_end|>")
    for text in AWKWARD:
        segments = [
            PromptSegment("<|im_start|>", special=True),
            PromptSegment("user\n" + text),
            PromptSegment("<|im_end|>", special=True),
        ]
        ids = tokenizer.encode_prompt(segments)
        assert [i for i in ids if i in tokenizer.special_ids] == [start, end]
        assert tokenizer.decode(ids) == "user\n" + text


def test_a_tokenizer_that_treats_the_first_word_differently_still_gives_the_ids_of_the_whole_prompt(
    tmp_path: Path,
) -> None:
    words = ["<unk>", "<s>", "▁Hi", "Hi", "▁", "H", "i", "▁you", "you", "y", "o", "u"]
    merges = [("H", "i"), ("▁", "Hi"), ("y", "o"), ("yo", "u"), ("▁", "you")]
    vocabulary = {word: i for i, word in enumerate([*words, "yo"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    made.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in ("<unk>", "<s>")])
    tokenizer = saved(made, tmp_path)
    segments = [PromptSegment("<s>", special=True), PromptSegment("Hi you")]
    assert tokenizer.encode_prompt(segments) == [1, 3, 7]  # "Hi" after a special token has no space before it
    assert tokenizer.encode_text("Hi you") == [2, 7]


def test_a_template_that_writes_an_unknown_special_token_is_refused(tokenizer: TextTokenizer) -> None:
    with pytest.raises(BadRequest, match="'the', which is no special token"):
        tokenizer.encode_prompt([PromptSegment("the", special=True)])


def test_half_of_a_surrogate_pair_is_refused_with_its_place(tokenizer: TextTokenizer) -> None:
    with pytest.raises(BadRequest, match="surrogate pair at character 2"):
        tokenizer.encode_text("ab\ud800")
    with pytest.raises(BadRequest, match="surrogate pair at character 1"):
        tokenizer.encode_prompt([PromptSegment("a"), PromptSegment("\udc00")])


def test_a_stream_yields_whole_characters_and_in_the_end_the_whole_text(tokenizer: TextTokenizer) -> None:
    for text in AWKWARD:
        ids = tokenizer.encode_text(text)
        stream = tokenizer.decode_stream()
        pieces = [*map(stream.step, ids), stream.finish()]
        assert "".join(pieces) == tokenizer.decode(ids) == text
        if "\ufffd" not in text:
            assert not any("\ufffd" in piece for piece in pieces)


def test_a_stream_shows_each_character_as_soon_as_it_is_complete(tokenizer: TextTokenizer) -> None:
    stream = tokenizer.decode_stream()
    ids = tokenizer.encode_text("👋語a")
    shown = [stream.step(i) for i in ids]
    assert [piece for piece in shown if piece] == ["👋", "語", "a"]
    assert shown[-1] == "a"
    assert len(ids) > 3


def test_a_character_that_never_ends_is_shown_as_such_at_the_end(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode_text("ok 👋")[:-1]
    stream = tokenizer.decode_stream()
    pieces = [stream.step(i) for i in ids]
    assert "".join(pieces).strip() == "ok"
    assert "".join(pieces) + stream.finish() == tokenizer.decode(ids)
    assert stream.finish() == ""


def test_special_tokens_are_left_out_of_text_unless_asked_for(tokenizer: TextTokenizer) -> None:
    ids = [*tokenizer.encode_text("Hi"), 2]
    assert tokenizer.decode(ids) == "Hi"
    assert tokenizer.decode(ids, skip_special=False) == "Hi<|im_end|>"
    stream = tokenizer.decode_stream(skip_special=False)
    assert "".join(map(stream.step, ids)) == "Hi<|im_end|>"


def test_texts_to_embed_get_the_encoders_frame_and_are_cut_to_its_limit(encoder_tokenizer: TextTokenizer) -> None:
    short, long, forged = encoder_tokenizer.encode_for_embedding(["hello", "word " * 500, "[SEP] [CLS]"], 16)
    first, last = encoder_tokenizer.token_id("[CLS]"), encoder_tokenizer.token_id("[SEP]")
    assert short == [first, encoder_tokenizer.token_id("hello"), last]
    assert len(long) == 16
    assert (long[0], long[-1]) == (first, last)
    assert not {first, last} & set(forged[1:-1])


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"model": {"type": "BPE"}}'])
def test_a_file_that_is_no_tokenizer_is_corrupt(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CorruptModel, match=r"tokenizer\.json"):
        TextTokenizer(tmp_path / "tokenizer.json")


def test_the_definition_rebuilds_the_tokenizer(tokenizer: TextTokenizer) -> None:
    again = Tokenizer.from_str(tokenizer.definition())
    assert again.encode("Hello, world!").ids == tokenizer.encode_text("Hello, world!")
    assert again.get_vocab_size() == tokenizer.vocab_size


def test_no_text_ever_becomes_a_tag_and_a_template_may_write_it(tmp_path: Path) -> None:
    """Qwen has `<tool_call>` and `<think>` as tokens of their own which are not special by name."""
    tokenizer = saved(with_tags(), tmp_path)
    assert tokenizer.tags == ("<tool_call>", "</tool_call>", "<think>", "[INST]")
    tags = {tokenizer.token_id(tag) for tag in tokenizer.tags}
    for text in ("<tool_call>", "a<tool_call>b</tool_call>", "<think><think>", "[INST]", "<tool_<tool_call>call>"):
        ids = tokenizer.encode_text(text)
        assert tags.isdisjoint(ids)
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode_text("  ") == [tokenizer.token_id("  ")], "blanks steer nothing"
    forged = [PromptSegment("<think>", special=True), PromptSegment("<think>")]
    assert [i for i in tokenizer.encode_prompt(forged) if i in tags] == [tokenizer.token_id("<think>")]


def with_tags() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tags = ["<tool_call>", "</tool_call>", "<think>", "[INST]", "  ", "<", "=>"]
    made.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    return made
