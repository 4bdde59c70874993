"""The contract's messages in the form that chat templates read, and a model's language from its directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.errors import CorruptModel, Unsupported
from backends.generation import text_of
from backends.inference import ChatPrompt, StopReason
from backends.onnx.chat_template import ChatTemplate
from backends.onnx.config import CHAT_TEMPLATE_FILE, TOKENIZER_FILE, DecoderConfig
from backends.onnx.engine import Language, ReadPrompt, check_characters
from backends.onnx.grammar import GrammarCompiler
from backends.onnx.tokenizer import TextTokenizer
from generated.models import CompletionMessage, Message, ToolCall, ToolResponseMessage, UserMessage

END_OF_MESSAGE = "<|eom_id|>"


def load_language(directory: Path, config: DecoderConfig, context_length: int, repetition_penalty: float) -> Language:
    """How the model in `directory` reads and ends texts. Raises CorruptModel."""
    tokenizer = TextTokenizer(directory / TOKENIZER_FILE)
    template = _chat_template(directory / CHAT_TEMPLATE_FILE, tokenizer, config)

    def read_chat(prompt: ChatPrompt) -> ReadPrompt:
        assert template is not None  # noqa: S101
        if prompt.tools:
            raise Unsupported("tool calls are not supported by this model yet; leave out tools", where="/tools")
        entries = template_messages(prompt.messages, tools=template.takes_tools)
        check_characters(sum(len(entry["content"]) for entry in entries), context_length, tokenizer.longest_token)
        return ReadPrompt(tokenizer.encode_prompt(template.render(entries)), tokenizer.decode_stream())

    return Language(
        tokenizer=tokenizer,
        read_chat=read_chat if template is not None else None,
        ends={token: _end(tokenizer, token) for token in config.eos_token_ids},
        grammars=GrammarCompiler(tokenizer.definition(), config.eos_token_ids, config.vocab),
        context_length=context_length,
        bos=config.bos_token_id,
        add_bos=config.add_bos,
        repetition_penalty=repetition_penalty,
        longest_token=tokenizer.longest_token,
    )


def _end(tokenizer: TextTokenizer, token: int) -> StopReason:
    """How an answer ends with the token: Llama's `<|eom_id|>` ends a message and not the turn."""
    return "end_of_message" if tokenizer.decode([token], skip_special=False) == END_OF_MESSAGE else "end_of_turn"


def template_messages(messages: Sequence[Message], *, tools: bool) -> list[dict[str, Any]]:
    """One dict with `role` and `content` per message; items are joined by line breaks, a user message's context follows
    its content after an empty line.

    tools: whether the template knows tool calls. If not, an assistant's calls follow its content as JSON, a line each.

    Raises:
        Unsupported: a message holds an image; `where` is its JSON pointer.
    """
    return [_template_message(message, f"/messages/{i}", tools) for i, message in enumerate(messages)]


def _template_message(message: Message, where: str, tools: bool) -> dict[str, Any]:
    content = text_of(message.content, where=f"{where}/content")
    entry: dict[str, Any] = {"role": message.role, "content": content}
    match message:
        case UserMessage(context=context) if context is not None:
            entry["content"] = f"{content}\n\n{text_of(context, where=f'{where}/context')}"
        case ToolResponseMessage():
            entry |= {"name": message.tool_name, "tool_call_id": message.call_id}
        case CompletionMessage(tool_calls=[_, *_] as calls) if tools:
            entry["tool_calls"] = [{"id": c.call_id, "type": "function", "function": _function(c)} for c in calls]
        case CompletionMessage(tool_calls=[_, *_] as calls):
            lines = [json.dumps(_function(call), ensure_ascii=False) for call in calls]
            entry["content"] = "\n".join([content, *lines] if content else lines)
    return entry


def _function(call: ToolCall) -> dict[str, Any]:
    return {"name": call.tool_name, "arguments": call.arguments}


def _chat_template(file: Path, tokenizer: TextTokenizer, config: DecoderConfig) -> ChatTemplate | None:
    try:
        source = file.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptModel(file.name, f"cannot be read: {error}") from error
    bos, eos = config.bos_token_id, config.eos_token_ids
    return ChatTemplate(
        source,
        special_tokens=tokenizer.special_tokens,
        bos_token="" if bos is None else tokenizer.decode([bos], skip_special=False),
        eos_token=tokenizer.decode([eos[-1]], skip_special=False) if eos else "",
    )
