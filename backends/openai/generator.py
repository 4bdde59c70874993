"""The TextGenerator port on an OpenAI-compatible upstream."""

from __future__ import annotations

import concurrent.futures
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from backends.context import CallContext
from backends.errors import StackError, UnknownReference
from backends.inference import GenerateRequest, GenerationEvent, ModelLimits
from backends.openai import protocol
from backends.openai.answer import AnswerReader
from backends.openai.request import request_of
from backends.openai.upstream import Upstream, encoded


class OpenAITextGenerator:
    """Answers through /chat/completions and /completions, always streamed.

    `generate` returns when the upstream's first event is there, so that its refusals are plain errors. The upstream's
    own chat template renders tools and messages: `tool_prompt_format` and `priority` have no effect.
    """

    def __init__(self, upstream: Upstream, *, new_id: Callable[[], str] = lambda: f"call_{uuid.uuid4().hex}") -> None:
        self._upstream = upstream
        self._new_id = new_id

    def generate(self, context: CallContext, request: GenerateRequest) -> UpstreamEvents:
        """As the port says. Raises also Unavailable: the upstream is down; BadRequest: it refuses."""
        path, body = request_of(request, self._upstream.settings)
        content, key = encoded(body), self._upstream.key(context)
        reader = AnswerReader(request.logprobs, self._new_id)
        events: SimpleQueue[list[GenerationEvent] | None] = SimpleQueue()

        async def answer() -> None:
            def receive(chunk: protocol.Chunk) -> bool:
                events.put(reader.read(chunk))
                return reader.complete and chunk.usage is not None

            try:
                await self._upstream.stream(context, path, content, key, receive)
            except StackError:
                if not reader.complete:
                    raise
            events.put(reader.end())

        future = self._upstream.start(context, answer)
        future.add_done_callback(lambda _: events.put(None))
        return UpstreamEvents(context, self._upstream, future, events)

    def limits(self, model: str) -> ModelLimits:
        """Context length as configured, else as the upstream tells, else 0.

        Raises UnknownReference: the upstream lists its models, and this is none. Unavailable: it does not answer.
        """
        return ModelLimits(known_length(self._upstream, model))

    def ping(self) -> None:
        self._upstream.ping()

    def close(self) -> None:
        self._upstream.close()


class UpstreamEvents(Iterator[GenerationEvent]):
    """The events of one answer. Closing or dropping it ends the request."""

    def __init__(
        self,
        context: CallContext,
        upstream: Upstream,
        future: concurrent.futures.Future[None],
        events: SimpleQueue[list[GenerationEvent] | None],
    ) -> None:
        """Wait for the first event. `events`: a list for each chunk, None when the request has ended.

        Raises:
            StackError: it has ended before.
        """
        self._context = context
        self._upstream = upstream
        self._future = future
        self._events = events
        self._ready: deque[GenerationEvent] = deque()
        self._ended = False
        self._left = weakref.finalize(self, future.cancel)
        self._left.atexit = False
        self._take()
        if self._ended:
            self._raise()

    def __next__(self) -> GenerationEvent:
        while not self._ready:
            if self._ended:
                self._raise()
                raise StopIteration
            self._take()
        if not self._future.done() or self._future.cancelled():
            self._context.check()
        return self._ready.popleft()

    def close(self) -> None:
        """End the request; what has not been read is lost."""
        self._left()
        self._ready.clear()
        self._ended = True

    def _take(self) -> None:
        events = self._events.get()
        if events is None:
            self._ended = True
        else:
            self._ready += events

    def _raise(self) -> None:
        if not self._left.alive:
            return  # closed by its reader
        self._upstream.result(self._context, self._future)


def known_length(upstream: Upstream, model: str) -> int:
    """Tokens that a model takes, 0 if nobody tells. Raises UnknownReference, Unavailable."""
    models = upstream.models()
    if models is not None and model not in models:
        raise UnknownReference(f"model {model} not found at {upstream.place}; it has {', '.join(models) or 'none'}")
    return upstream.settings.context_length or (models or {}).get(model) or 0
