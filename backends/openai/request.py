"""A `GenerateRequest` as path and body of an OpenAI-compatible API, with what each dialect adds."""

from __future__ import annotations

from typing import Any

from backends.errors import BadRequest, Unsupported
from backends.inference import ChatPrompt, GenerateRequest, Sampling
from backends.openai.messages import chat_messages, chat_tools
from backends.openai.settings import Dialect, OpenAISettings
from generated.models import GrammarResponseFormat, JsonSchemaResponseFormat, ResponseFormat

JsonObject = dict[str, Any]
MAX_LOGPROBS = 20
LAST_TOKENS = 32_768
"""Tokens that llama.cpp weakens where no context length is configured: it keeps that many, and has no word for all."""
CHAT = "/chat/completions"
COMPLETIONS = "/completions"


def request_of(request: GenerateRequest, settings: OpenAISettings) -> tuple[str, JsonObject]:
    """Path behind the base URL and body.

    Raises:
        Unsupported: what the dialect has no member for, by name. BadRequest: more logprobs than there are.
    """
    chat = isinstance(request.prompt, ChatPrompt)
    dialect = settings.dialect
    body: JsonObject = {
        "model": request.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_sampling(request.sampling, settings, chat),
        **_logprobs(request.logprobs, chat),
        **_response_format(request.response_format, dialect, chat),
    }
    if not isinstance(request.prompt, ChatPrompt):
        return COMPLETIONS, {**body, "prompt": request.prompt.text}
    body["messages"] = chat_messages(request.prompt.messages, vision=settings.vision)
    if request.prompt.tools:
        body["tools"] = chat_tools(request.prompt.tools, request.prompt.schemas)
        body["tool_choice"] = request.prompt.tool_choice
    return CHAT, body


def _sampling(sampling: Sampling, settings: OpenAISettings, chat: bool) -> JsonObject:
    """Everything the port defines is sent, also where it is the usual value: upstreams have defaults of their own."""
    dialect = settings.dialect
    members: JsonObject = {"temperature": sampling.temperature}
    if dialect != "tgi" or sampling.top_p < 1:  # TGI wants it below 1
        members["top_p"] = sampling.top_p
    penalty = sampling.repetition_penalty
    match dialect:
        case "vllm":
            members |= {"top_k": sampling.top_k or -1, "min_p": 0.0}
            if penalty is not None:
                members["repetition_penalty"] = penalty
        case "llama.cpp":
            members |= {"top_k": sampling.top_k, "min_p": 0.0}
            if penalty is not None:
                members |= {"repeat_penalty": penalty, "repeat_last_n": settings.context_length or LAST_TOKENS}
        case _:
            if sampling.top_k:
                raise _unknown("top_k sampling", dialect, "use top_p", "/sampling_params/strategy")
            if penalty not in (None, 1.0):
                where = "/sampling_params/repetition_penalty"
                raise _unknown("repetition_penalty", dialect, "leave it out", where)
    if sampling.max_tokens:
        members["max_tokens"] = sampling.max_tokens
    elif dialect == "vllm" and not chat:
        members["max_tokens"] = None  # absent it would be 16
    if sampling.stop:
        members["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        members["seed"] = sampling.seed
    return members


def _logprobs(asked: int, chat: bool) -> JsonObject:
    if asked > MAX_LOGPROBS:
        raise BadRequest(
            f"logprobs of {asked} tokens were asked for; at most {MAX_LOGPROBS} are told", where="/logprobs/top_k"
        )
    if not asked:
        return {}
    return {"logprobs": True, "top_logprobs": asked} if chat else {"logprobs": asked}


def _response_format(wanted: ResponseFormat | None, dialect: Dialect, chat: bool) -> JsonObject:
    match wanted:
        case None:
            return {}
        case JsonSchemaResponseFormat(json_schema=schema):
            return _json_schema(schema, dialect, chat)
        case GrammarResponseFormat(bnf=bnf):
            return _grammar(bnf, dialect)


def _json_schema(schema: JsonObject, dialect: Dialect, chat: bool) -> JsonObject:
    if not chat and dialect in ("openai", "tgi"):
        raise _unknown("response_format of a completion", dialect, "use chat completion", "/response_format")
    if dialect == "tgi":
        return {"response_format": {"type": "json", "value": schema}}
    if dialect == "llama.cpp" and not chat:
        return {"json_schema": schema}
    named = {"name": "answer", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _grammar(bnf: JsonObject, dialect: Dialect) -> JsonObject:
    where = "/response_format/bnf"
    match bnf:
        case {"gbnf": str(text)}:
            kind = "gbnf"
        case {"lark": str(text)}:
            kind = "lark"
        case _:
            raise BadRequest("a grammar is a text under the key `gbnf` or `lark`", where=where)
    if dialect == "vllm":
        # The second name is that of releases before 0.12, the third SGLang's; each skips the names it does not know.
        members: JsonObject = {"structured_outputs": {"grammar": text}, "guided_grammar": text}
        return {**members, "ebnf": text} if kind == "gbnf" else members
    if dialect == "llama.cpp" and kind == "gbnf":
        return {"grammar": text}
    raise _unknown(f"a {kind} grammar", dialect, "use json_schema", where)


def _unknown(feature: str, dialect: Dialect, instead: str, where: str) -> Unsupported:
    return Unsupported(f"{feature} is not supported by upstreams of dialect {dialect}; {instead}", where=where)
