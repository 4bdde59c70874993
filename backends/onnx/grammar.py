"""Grammars that an answer must obey: what a response format or a tool format asks for, compiled for one vocabulary.

llguidance does the work (Earley parser over token tries, https://github.com/guidance-ai/llguidance). Compiling happens
in the caller's thread, before the sequence reaches the decode loop, and every limit below is about what a hostile
grammar could cost the others.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from backends.errors import BadRequest
from generated.models import GrammarResponseFormat, JsonSchemaResponseFormat, ResponseFormat

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

Mask = NDArray[np.int32]

MAX_CHARACTERS = 100_000
"""Of a schema or a grammar as text."""
MAX_FIRST_MASK_S = 0.5
"""What the first mask of a grammar may take; it is made before the sequence is admitted."""
STEP_LEXER_FUEL = 100_000
"""llguidance's own unit of work for one mask, half its default: about 7 ms."""
KEPT = 64
"""Compiled grammars kept for the next request that has the same."""

SCHEMA_PLACE = "/response_format/json_schema"
BNF_PLACE = "/response_format/bnf"


class Constraint(Protocol):
    """One sequence's place in what its answer must obey. Used by one thread at a time."""

    def masked(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """`logits`, float32 [vocab], with minus infinity for every token that may not come next; they stay as they are.

        The array is the constraint's own and lasts until the next call.

        Raises:
            BadRequest: the grammar has become too complex on this path.
        """

    def accept(self, token: int) -> None:
        """Go on by a token that `masked` allowed or `forced` gave. Raises BadRequest as `masked` does."""

    def forced(self) -> list[int]:
        """The tokens that must come next whatever the model thinks, as far as that is certain; often none."""

    @property
    def complete(self) -> bool:
        """Whether nothing but the end can follow."""


class GrammarCompiler:
    """Compiles grammars for one model. Safe to share between threads.

    definition: the tokenizer as the JSON of the `tokenizers` library. eos: tokens that end an answer. vocab: columns of
    the logits.
    """

    def __init__(self, definition: str, eos: Sequence[int], vocab: int) -> None:
        self._definition = definition
        self._eos = list(eos)
        self._vocab = vocab
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def response_format(self, form: ResponseFormat) -> GrammarConstraint:
        """What `response_format` of a request asks for.

        Raises:
            BadRequest: the schema or grammar is not one, is impossible, uses what is not supported, or is too large.
        """
        match form:
            case JsonSchemaResponseFormat(json_schema=schema):
                return self.compile(json_schema_grammar(schema), where=SCHEMA_PLACE)
            case GrammarResponseFormat(bnf=bnf):
                return self.compile(lark_grammar(bnf), where=BNF_PLACE)

    def compile(self, grammar: str, *, where: str) -> GrammarConstraint:
        """A constraint at the beginning of an answer. grammar: llguidance's own JSON, or Lark text.

        Raises:
            BadRequest: llguidance refuses it; `where` is its place in the request.
        """
        with self._lock:
            matcher = self._compiled.get(grammar)
            if matcher is not None:
                self._compiled.move_to_end(grammar)
        if matcher is None:
            matcher = self._matcher(grammar, where)
            with self._lock:
                self._compiled[grammar] = matcher
                while len(self._compiled) > KEPT:
                    self._compiled.popitem(last=False)
        return GrammarConstraint(matcher.deep_copy(), self._vocab)

    def _matcher(self, grammar: str, where: str) -> LLMatcher:
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(step_lexer_fuel=STEP_LEXER_FUEL, verbose_errors=False)
        # Raises nothing for a bad grammar, and lets other Python threads run meanwhile.
        matcher = LLMatcher(self._vocabulary(), grammar, log_level=0, limits=limits)
        if not matcher.is_error():
            started = time.perf_counter()
            matcher.compute_bitmask()
            if time.perf_counter() - started > MAX_FIRST_MASK_S:
                raise BadRequest("the grammar is too complex: it allows too much at once", where=where)
        if matcher.is_error():
            reason = matcher.get_error().removesuffix("<non-verbose/>").strip()
            # What llguidance says of a rule that no text fulfils.
            reason = "no text fulfils it" if reason.startswith("NoExtension") else reason
            raise BadRequest(f"the grammar cannot be used: {reason[:1000]}", where=where)
        return matcher

    def _vocabulary(self) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                from llguidance import LLTokenizer

                self._tokenizer = LLTokenizer(self._definition, n_vocab=self._vocab, eos_token=self._eos)
            return self._tokenizer


class GrammarConstraint:
    """One sequence's place in one grammar. Implements `Constraint`."""

    def __init__(self, matcher: LLMatcher, vocab: int) -> None:
        self._matcher = matcher
        self._mask: Mask = np.zeros(-(-vocab // 32), np.int32)
        self._masked: NDArray[np.float32] = np.empty(vocab, np.float32)

    def masked(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        allowed = np.unpackbits(self._mask.view(np.uint8), count=len(logits), bitorder="little").view(np.bool_)
        self._masked.fill(-np.inf)
        np.copyto(self._masked, logits, where=allowed)
        return self._masked

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    def forced(self) -> list[int]:
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    @property
    def complete(self) -> bool:
        stopped: bool = self._matcher.is_stopped()
        return stopped

    @property
    def may_end(self) -> bool:
        """Whether the answer is whole as it stands."""
        accepting: bool = self._matcher.is_accepting()
        return accepting

    def allows(self, token: int) -> bool:
        """Whether `token`, which ends nothing, may come next."""
        valid: int = self._matcher.validate_tokens([token])
        return valid == 1

    def _check(self) -> None:
        if self._matcher.is_error():
            raise BadRequest(f"the grammar became too complex: {self._matcher.get_error()[:200]}")


def json_schema_grammar(schema: dict[str, object]) -> str:
    """llguidance's grammar for JSON of this schema, written without white space.

    Raises:
        BadRequest: it is too large or nested too deeply.
    """
    from llguidance import LLMatcher

    try:
        text = json.dumps(schema, ensure_ascii=False)
        _check_size(text, SCHEMA_PLACE)
        # White space is the model's to repeat for ever where a grammar allows it.
        return LLMatcher.grammar_from_json_schema(text, overrides={"whitespace_flexible": False})
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the JSON schema cannot be used: {error}", where=SCHEMA_PLACE) from error


def lark_grammar(bnf: dict[str, object]) -> str:
    """The Lark text behind the contract's untyped `bnf`: `{"lark": text}`, or `{"gbnf": text}`, which is converted.

    Raises:
        BadRequest: another form, or text that is no GBNF.
    """
    match bnf:
        case {"lark": str(text), **rest} if not rest:
            _check_size(text, f"{BNF_PLACE}/lark")
            return text
        case {"gbnf": str(text), **rest} if not rest:
            _check_size(text, f"{BNF_PLACE}/gbnf")
            return _from_gbnf(text)
    raise BadRequest(
        'bnf must be {"gbnf": "root ::= ..."} (llama.cpp\'s notation) or {"lark": "start: ..."}', where=BNF_PLACE
    )


def _from_gbnf(text: str) -> str:
    from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

    try:
        return gbnf_to_lark(text)
    except (GbnfToLarkError, RecursionError, ValueError, LookupError) as error:
        raise BadRequest(f"the GBNF grammar cannot be read: {str(error)[:500]}", where=f"{BNF_PLACE}/gbnf") from error


def _check_size(text: str, where: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise BadRequest(f"a grammar may have {MAX_CHARACTERS} characters, this one has {len(text)}", where=where)
