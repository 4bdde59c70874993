"""Conversations to prompts by the model's own Jinja template, so that no message can forge a special token.

The template mixes its own special tokens with what users wrote, and afterwards nobody can tell which was which. So
before rendering, wherever a user's text spells a special token, or an end of one that the neighbouring text might
complete, a mark is put between its characters: a private-use character that occurs nowhere in this conversation. The
template works on the marked text like on any other; an unbroken special token in its output is its own. Ordinary text
is not touched at all: whatever the template tests, trims or splits, it sees what the model's authors meant it to see.

Tags, tokens such as `<tool_call>` that are not special by name, are treated likewise, but in what an assistant said
they stay: it may have said them, and templates look for them there, as for the end of its thoughts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, meta
from jinja2.exceptions import SecurityError

from backends.errors import BadRequest, CorruptModel
from backends.onnx.config import CHAT_TEMPLATE_FILE
from backends.onnx.template_sandbox import MAX_CHARACTERS, BoundedEnvironment
from backends.onnx.tokenizer import PromptSegment

Message = Mapping[str, Any]

_PRIVATE_USE = (0xF0000, 0xFFFFD)
_RESULT_ROLE = re.compile("""["'](?:tool|ipython)["']""")
_PRIVATE_USE_TEXT = re.compile("[\U000f0000-\U000ffffd]")


@dataclass(frozen=True, slots=True)
class MixedText:
    """A text for a template that holds special tokens of ours, as a tool call does, beside text from elsewhere."""

    segments: tuple[PromptSegment, ...]

    def __len__(self) -> int:
        return sum(len(segment.text) for segment in self.segments)


class ChatTemplate:
    """A model's chat template, compiled once. Safe to share between threads.

    special_tokens: text of the model's special tokens. tags: of those that steer it too, see above. bos_token,
    eos_token: what templates may use under these names.
    now: clock for templates that write today's date.

    Raises (constructor):
        CorruptModel: `source` is no Jinja template.
    """

    def __init__(
        self,
        source: str,
        *,
        special_tokens: Sequence[str],
        tags: Sequence[str] = (),
        bos_token: str = "",
        eos_token: str = "",
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        environment = BoundedEnvironment()
        environment.globals |= {
            "raise_exception": _refuse,
            "strftime_now": lambda form: now().strftime(form),
            "bos_token": bos_token,
            "eos_token": eos_token,
        }
        try:
            self._template = environment.from_string(source)
            variables = meta.find_undeclared_variables(environment.parse(source))
        except (TemplateError, RecursionError) as error:
            raise CorruptModel(CHAT_TEMPLATE_FILE, f"is not a Jinja template: {error}") from error
        self._environment = environment
        self.special_tokens = (*special_tokens, *tags)
        """Tags included."""
        self.takes_tools = "tools" in variables
        """Whether the template says anything about tools; if not, the caller must describe them in a message."""
        self.takes_builtin_tools = "builtin_tools" in variables
        """Whether the template has a way of its own for the tools that the contract names, as Llama 3.1's has."""
        self.takes_results = _RESULT_ROLE.search(source) is not None
        """Whether the template knows a role for the results of tools."""
        self._source_marks = set(_PRIVATE_USE_TEXT.findall(source))
        self._for_all = _Spelling(self.special_tokens)
        self._for_assistants = _Spelling(special_tokens)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> list[PromptSegment]:
        """The prompt for `messages` (dicts with `role`, `content` and whatever else the template reads), for
        `TextTokenizer.encode_prompt`. Any text in them may be a `MixedText`.

        tools: tool definitions in the form that the template expects, usually OpenAI's. add_generation_prompt: end with
        the beginning of an assistant's turn. variables: anything else that a template may look for.

        Raises:
            BadRequest: the template refuses the conversation, or needs more work than a prompt may.
        """
        given = {"messages": list(messages), "tools": None if tools is None else list(tools), **variables}
        mark = self._unused_mark(given)
        values = {name: _marked(value, mark, self._for_all) for name, value in given.items()}
        for message, marked in zip(messages, values["messages"], strict=True):
            if message.get("role") == "assistant" and "content" in message:
                marked["content"] = _marked(message["content"], mark, self._for_assistants)
        chunks: list[str] = []
        size = 0
        try:
            with self._environment.budget():
                for chunk in self._template.generate(values, add_generation_prompt=add_generation_prompt):
                    size += len(chunk)
                    if size > MAX_CHARACTERS:
                        raise SecurityError(f"it writes more than {MAX_CHARACTERS} characters")
                    chunks.append(chunk)
        except _RefusalError as error:
            raise BadRequest(
                f"the model's chat template refuses the conversation: {error}", where="messages"
            ) from error
        except RecursionError as error:
            raise BadRequest("the model's chat template calls itself without end", where="messages") from error
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise BadRequest(
                f"the model's chat template fails on the conversation: {error}", where="messages"
            ) from error
        return list(self._segments("".join(chunks), mark))

    def _segments(self, text: str, mark: str) -> Iterator[PromptSegment]:
        """`text` cut around the template's own special tokens, without marks."""
        position = 0
        for match in self._for_all.pattern.finditer(text):
            if len(match[0]) == 1 and text.startswith(mark, match.end()):  # a message's: no mark can part it
                continue
            if plain := text[position : match.start()].replace(mark, ""):
                yield PromptSegment(plain)
            yield PromptSegment(match[0], special=True)
            position = match.end()
        if plain := text[position:].replace(mark, ""):
            yield PromptSegment(plain)

    def _unused_mark(self, given: Any) -> str:
        used = set(self._source_marks)
        pending = [given]
        while pending:
            item = pending.pop()
            if isinstance(item, str):
                used.update(_PRIVATE_USE_TEXT.findall(item))
            elif isinstance(item, MixedText):
                pending += [segment.text for segment in item.segments]
            elif isinstance(item, Mapping):
                pending += [*item, *item.values()]
            elif isinstance(item, list | tuple):
                pending += item
        for code in range(_PRIVATE_USE[0], _PRIVATE_USE[1] + 1):
            if chr(code) not in used:
                return chr(code)
        raise BadRequest("the conversation uses every private-use character of plane 15", where="messages")


class _Spelling:
    """How texts spell some tokens, and how they are kept from it."""

    def __init__(self, tokens: Sequence[str]) -> None:
        # Longest first: of two special tokens that begin alike, tokenizers take the longer.
        longest_first = sorted(filter(None, tokens), key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # A template may change the case of what it is given.
        self._spelled = re.compile(self.pattern.pattern, re.IGNORECASE)
        folded = {token.casefold() for token in longest_first}
        self._beginnings = tuple({token[:n] for token in folded for n in range(1, len(token))})
        self._endings = tuple({token[n:] for token in folded for n in range(1, len(token))})

    def marked(self, text: str, mark: str) -> str:
        """`text`, unable to spell any of the tokens, by itself or with its neighbours."""
        ends, folded = "", text.casefold()
        if folded.endswith(self._beginnings):
            ends = mark
        starts = mark if folded.startswith(self._endings) else ""
        # After every character, so that no other special token that overlaps this one stays whole.
        return starts + self._spelled.sub(lambda match: "".join(c + mark for c in match[0]), text) + ends


def _marked(value: Any, mark: str, spelling: _Spelling) -> Any:
    """`value` with every text in it marked, at any depth."""
    if isinstance(value, str):
        return spelling.marked(value, mark)
    if isinstance(value, MixedText):
        return "".join(s.text if s.special else spelling.marked(s.text, mark) for s in value.segments)
    if isinstance(value, Mapping):
        return {_marked(key, mark, spelling): _marked(item, mark, spelling) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item, mark, spelling) for item in value]
    return value


class _RefusalError(Exception):
    """What a template raises with `raise_exception`."""


def _refuse(message: object) -> None:
    raise _RefusalError(str(message)[:1000])
