"""What crosses a process border arrives as it was."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from backends import errors, wire
from backends.context import CallContext, Secrets
from backends.inference import (
    ChatPrompt,
    ClassifyRequest,
    ClassifyResult,
    EmbedRequest,
    EmbedResult,
    Finish,
    GenerateRequest,
    GenerationEvent,
    ModelLimits,
    Sampling,
    TextDelta,
    TextPrompt,
    TokenizeRequest,
    ToolCallDelta,
)
from backends.memory.classifier import MemoryClassifier
from backends.memory.embedder import MemoryEmbedder
from generated.models import (
    CompletionMessage,
    ImageContentItem,
    JsonSchemaResponseFormat,
    SystemMessage,
    TextContentItem,
    ToolCall,
    ToolDefinition,
    ToolParamDefinition,
    ToolResponseMessage,
    UserMessage,
)
from tests.backends.loopback import LoopbackClassifier, LoopbackEmbedder, LoopbackTextGenerator

CALL = ToolCall(call_id="c1", tool_name="weather", arguments={"city": "Paris", "days": [1, 2.5, None, {"a": True}]})
EVERYTHING = GenerateRequest(
    model="m",
    prompt=ChatPrompt(
        messages=(
            SystemMessage(content="be kind"),
            UserMessage(content=[TextContentItem(text="hé 🎉"), TextContentItem(text="x")], context="more"),
            UserMessage(content=ImageContentItem.model_validate({"type": "image", "image": {"data": "aGk="}})),
            CompletionMessage(content="", stop_reason="end_of_turn", tool_calls=[CALL]),
            ToolResponseMessage(call_id="c1", tool_name="weather", content="sunny"),
        ),
        tools=(
            ToolDefinition(
                tool_name="weather",
                description=None,
                parameters={"city": ToolParamDefinition(param_type="string", default={"none": None})},
            ),
        ),
        tool_choice="required",
        tool_prompt_format="json",
    ),
    sampling=Sampling(0.5, 0.9, 3, None, 7, ("a", "b"), 2**63 - 1),
    logprobs=3,
    response_format=JsonSchemaResponseFormat(json_schema={"type": "object", "default": None}),
    priority="batch",
)


@pytest.mark.parametrize("request_", [EVERYTHING, GenerateRequest("m", TextPrompt("\x00 text"))], ids=["chat", "text"])
def test_generate_requests_arrive_as_they_were(request_: GenerateRequest) -> None:
    assert wire.generate_request.decode(wire.generate_request.encode(request_)) == request_


@pytest.mark.parametrize(
    "event",
    [
        TextDelta("", ()),
        TextDelta("é", ({"é": -0.25, "e": -math.inf},)),
        ToolCallDelta("started", "{"),
        ToolCallDelta("succeeded", call=CALL),
        Finish("out_of_tokens", 3, 4, 2),
    ],
    ids=str,
)
def test_events_arrive_as_they_were(event: TextDelta | ToolCallDelta | Finish) -> None:
    assert wire.generation_event.decode(wire.generation_event.encode(event)) == event


def test_vectors_arrive_to_the_bit() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    result = EmbedResult.of(vectors, 7)
    arrived = wire.embed_result.decode(wire.embed_result.encode(result))
    assert arrived == result
    assert np.array_equal(arrived.vectors(), vectors)


def test_the_other_results_arrive_as_they_were() -> None:
    for codec, value in (
        (wire.embed_request, EmbedRequest("m", ("a", ""))),
        (wire.classify_request, ClassifyRequest("m", ("a",))),
        (wire.classify_result, ClassifyResult(("x", "y"), ((0.25, 0.75),), "x")),
        (wire.model_limits, ModelLimits(10, None)),
    ):
        assert codec.decode(codec.encode(value)) == value


def test_a_context_arrives_with_its_secrets_and_a_cancellation_of_its_own() -> None:
    context = CallContext("r", "key", "me", 12.5, "00-ab", Secrets({"openai": "sk-1"}))
    arrived = wire.decode_context(wire.encode_context(context))
    assert arrived == context
    assert dict(arrived.provider_data) == {"openai": "sk-1"}
    context.cancellation.cancel()
    assert not arrived.cancellation.cancelled


ERRORS = [
    errors.BadRequest("bad", where="/model_id"),
    errors.ContextLengthExceeded("too long"),
    errors.NoProvider("safety"),
    errors.Overloaded("full", retry_after_s=2.5),
    errors.NotBuilt("embeddings"),
    errors.Unavailable("down", retry_after_s=None),
    errors.CorruptModel("model.onnx", "cut short"),
    errors.Cancelled("gone"),
    errors.StackError("plain"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_errors_arrive_with_class_message_and_members(error: errors.StackError) -> None:
    arrived = wire.decode_error(wire.encode_error(error))
    assert type(arrived) is type(error)
    assert vars(arrived) == vars(error)
    assert str(arrived) == str(error)


def test_an_error_of_an_unknown_code_is_a_plain_one() -> None:
    data = msgspec.msgpack.encode(["from_the_future", {"message": "hm", "where": None}])
    assert type(wire.decode_error(data)) is errors.StackError


@pytest.mark.parametrize("data", [b"", b"\xc1", msgspec.msgpack.encode({"model": 3}), msgspec.msgpack.encode(None)])
def test_a_message_of_another_type_is_refused(data: bytes) -> None:
    for decode in (wire.generate_request.decode, wire.generation_event.decode, wire.decode_context, wire.decode_error):
        with pytest.raises(errors.StackError, match="a message is no"):
            decode(data)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_half_a_surrogate_pair_is_refused_before_it_is_sent(text: str) -> None:
    with pytest.raises(errors.BadRequest, match="surrogate"):
        wire.generate_request.encode(GenerateRequest("m", TextPrompt(text)))


def test_an_integer_over_64_bits_is_refused_before_it_is_sent() -> None:
    with pytest.raises(errors.BadRequest):
        wire.generate_request.encode(GenerateRequest("m", TextPrompt(""), Sampling(seed=2**70)))


def test_embedder_and_classifier_answer_the_same_through_the_loopback() -> None:
    context = CallContext("r")
    request = EmbedRequest("m", ("a cat", "a dog"))
    inner = MemoryEmbedder({"m"})
    assert LoopbackEmbedder(inner).embed(context, request) == inner.embed(context, request)
    tokens = TokenizeRequest("m", ("a cat", ""))
    assert LoopbackEmbedder(inner).tokenize(context, tokens) == inner.tokenize(context, tokens)
    assert LoopbackEmbedder(inner).limits("m") == inner.limits("m")
    with pytest.raises(errors.UnknownReference, match="x not found"):
        LoopbackEmbedder(inner).limits("x")
    classifier = MemoryClassifier({"m"})
    asked = ClassifyRequest("m", ("a bomb", "a cat"))
    assert LoopbackClassifier(classifier).classify(context, asked) == classifier.classify(context, asked)
    with pytest.raises(errors.UnknownReference, match="x not found"):
        LoopbackClassifier(classifier).classify(context, ClassifyRequest("x", ()))


class UntilCancelled:
    """A text generator that tells one delta and then waits for its end."""

    def generate(self, context: CallContext, request: GenerateRequest) -> Iterator[GenerationEvent]:
        yield TextDelta(request.model)
        assert context.cancellation.wait(timeout_s=30), "never cancelled"
        context.check()

    def limits(self, model: str) -> ModelLimits:
        return ModelLimits(1)

    def ping(self) -> None:
        raise errors.Unavailable("down")

    def close(self) -> None:
        pass


def test_cancelling_reaches_the_other_side_of_the_loopback() -> None:
    context = CallContext("r")
    events = LoopbackTextGenerator(UntilCancelled()).generate(context, GenerateRequest("m", TextPrompt("")))
    assert next(events) == TextDelta("m")
    context.cancellation.cancel()
    with pytest.raises(errors.Cancelled, match="gone"):
        next(events)


def test_closing_the_events_reaches_the_other_side_of_the_loopback() -> None:
    inner = UntilCancelled()
    generator = LoopbackTextGenerator(inner)
    events = generator.generate(CallContext("r"), GenerateRequest("m", TextPrompt("")))
    next(events)
    events.close()
    with pytest.raises(errors.Cancelled):
        next(events)


def test_the_health_of_the_other_side_is_told() -> None:
    with pytest.raises(errors.Unavailable, match="down"):
        LoopbackTextGenerator(UntilCancelled()).ping()


def test_every_error_code_stands_for_one_class() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and "code" in vars(kind)]
    assert len({kind.code for kind in classes}) == len(classes) > 15
