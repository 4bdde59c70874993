"""From the contract's inference types to the TextGenerator port and back: what handlers, agents and jobs share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from backends.context import CallContext
from backends.errors import BadRequest, Overloaded, StackError, Unavailable, Unsupported
from backends.inference import (
    Finish,
    GenerateRequest,
    GenerationEvent,
    Sampling,
    StopReason,
    TextDelta,
    ToolCallDelta,
)
from backends.ports import TextGenerator
from generated.models import (
    CompletionMessage,
    InterleavedContent,
    SamplingParams,
    TextContentItem,
    TokenLogProbs,
    TokenUsage,
    ToolCall,
    TopKSamplingStrategy,
    TopPSamplingStrategy,
)


def text_of(content: InterleavedContent, *, where: str) -> str:
    """The text of string, item or list content; items are joined by line breaks.

    `where` is the JSON pointer of the content, for the error.

    Raises:
        Unsupported: the content holds an image and only text is taken.
    """
    if isinstance(content, str):
        return content
    items = content if isinstance(content, list) else [content]
    texts = []
    for position, item in enumerate(items):
        if not isinstance(item, TextContentItem):
            place = f"{where}/{position}" if isinstance(content, list) else where
            raise Unsupported("images are not supported by this model; send text", where=place)
        texts.append(item.text)
    return "\n".join(texts)


def sampling_of(params: SamplingParams | None) -> Sampling:
    """The port's sampling for the contract's parameters; what the caller left out stays with the model's default.

    Raises:
        BadRequest: a value outside its range, by name.
    """
    if params is None:
        return Sampling()
    max_tokens = params.max_tokens or 0
    if max_tokens < 0:
        raise BadRequest("max_tokens must be 0 (all that fits) or more", where="/sampling_params/max_tokens")
    penalty = params.repetition_penalty if "repetition_penalty" in params.model_fields_set else None
    if penalty is not None and penalty <= 0:
        raise BadRequest("repetition_penalty must be above 0", where="/sampling_params/repetition_penalty")
    sampling = Sampling(max_tokens=max_tokens, repetition_penalty=penalty)
    match params.strategy:
        case TopPSamplingStrategy(temperature=temperature, top_p=top_p):
            return replace(sampling, temperature=1.0 if temperature is None else temperature, top_p=top_p or 0.95)
        case TopKSamplingStrategy(top_k=top_k):
            return replace(sampling, temperature=1.0, top_k=top_k)
        case _:
            return sampling


@dataclass(frozen=True, slots=True)
class Answer:
    """A generation that has ended: what its events add up to."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    finish: Finish
    logprobs: tuple[dict[str, float], ...]

    @property
    def stop_reason(self) -> StopReason:
        return self.finish.stop_reason

    @property
    def prompt_tokens(self) -> int:
        return self.finish.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        return self.finish.completion_tokens

    def usage(self) -> TokenUsage:
        """What it cost."""
        return usage_of(self.finish)

    def message(self) -> CompletionMessage:
        """The contract's assistant message."""
        return CompletionMessage(content=self.text, stop_reason=self.stop_reason, tool_calls=list(self.tool_calls))


def collect(events: Iterable[GenerationEvent]) -> Answer:
    """Read a generation to its end.

    Raises:
        Unavailable: the events ended without a `Finish` (the engine went away).
    """
    texts: list[str] = []
    calls: list[ToolCall] = []
    logprobs: list[dict[str, float]] = []
    for event in events:
        match event:
            case TextDelta():
                texts.append(event.text)
                logprobs.extend(event.logprobs)
            case ToolCallDelta():
                logprobs.extend(event.logprobs)
                if event.call is not None:
                    calls.append(event.call)
            case Finish():
                return Answer("".join(texts), tuple(calls), event, tuple(logprobs))
    raise Unavailable("the engine ended the generation before its last event")


def collect_all(
    generator: TextGenerator,
    context: CallContext,
    requests: Iterable[GenerateRequest],
    *,
    where: str,
    in_flight: int = 32,
) -> Iterator[Answer]:
    """The answers to many requests in their order, with at most `in_flight` of them admitted, or taken, at once.

    When the engine's queue is full the earliest of ours is awaited before the next is tried, so that a batch gives
    way to others and never fails halfway for load. `where` is the JSON pointer of the list, for the error of one item.

    Raises:
        Overloaded: the queue is full of others' requests. StackError: of the first refused item, with its place.
    """
    running: deque[Iterator[GenerationEvent]] = deque()
    try:
        yield from _collected(generator, context, requests, running, where, in_flight)
    finally:
        for left in running:  # of a caller who leaves, or of a refused item: nobody reads these any more
            if (close := getattr(left, "close", None)) is not None:
                close()


def _collected(
    generator: TextGenerator,
    context: CallContext,
    requests: Iterable[GenerateRequest],
    running: deque[Iterator[GenerationEvent]],
    where: str,
    in_flight: int,
) -> Iterator[Answer]:
    for position, request in enumerate(requests):
        while True:
            if len(running) >= in_flight:
                yield collect(running.popleft())
            try:
                running.append(generator.generate(context, request))
                break
            except Overloaded:
                if not running:
                    raise
                yield collect(running.popleft())
            except StackError as error:
                error.where = f"{where}/{position}"
                raise
    while running:
        yield collect(running.popleft())


def token_logprobs(logprobs: Iterable[dict[str, float]]) -> list[TokenLogProbs]:
    """The contract's form of per-token log probabilities."""
    return [TokenLogProbs(logprobs_by_token=by_token) for by_token in logprobs]


def usage_of(finish: Finish) -> TokenUsage:
    """The contract's form of what a generation cost."""
    return TokenUsage(
        prompt_tokens=finish.prompt_tokens,
        completion_tokens=finish.completion_tokens,
        cached_tokens=finish.cached_tokens,
    )
