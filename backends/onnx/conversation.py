"""A model's language from its directory: how it reads conversations, and in which form it is told of tools."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from backends.errors import CorruptModel
from backends.inference import ChatPrompt, StopReason
from backends.onnx.chat_template import ChatTemplate
from backends.onnx.config import CHAT_TEMPLATE_FILE, TOKENIZER_FILE, DecoderConfig
from backends.onnx.engine import Language, ReadPrompt, check_characters
from backends.onnx.grammar import GrammarCompiler
from backends.onnx.tokenizer import TextTokenizer
from backends.onnx.tools.format import ToolFormat, select_format
from generated.models import ToolPromptFormat

END_OF_MESSAGE = "<|eom_id|>"


def load_language(directory: Path, config: DecoderConfig, context_length: int, repetition_penalty: float) -> Language:
    """How the model in `directory` reads and ends texts. Raises CorruptModel."""
    tokenizer = TextTokenizer(directory / TOKENIZER_FILE)
    template = _chat_template(directory / CHAT_TEMPLATE_FILE, tokenizer, config)

    @cache
    def tool_format(requested: ToolPromptFormat | None) -> ToolFormat:
        assert template is not None  # noqa: S101
        return select_format(template, requested, tokenizer.added_tokens)

    def read_chat(prompt: ChatPrompt, *, formatted: bool) -> ReadPrompt:
        assert template is not None  # noqa: S101
        form, tools = tool_format(prompt.tool_prompt_format), prompt.tools
        required = prompt.tool_choice == "required"
        chat = form.render(prompt.messages, tools, prompt.tool_choice, schemas=prompt.schemas, formatted=formatted)
        check_characters(chat.characters(), context_length, tokenizer.longest_token)
        ids = tokenizer.encode_prompt(template.render(chat.messages, tools=chat.tools, **chat.variables))
        if not tools:
            return ReadPrompt(ids, tokenizer.decode_stream())
        stream = tokenizer.decode_stream(visible=form.visible_tokens)
        grammar = form.grammar(tools, required=required or formatted, schemas=prompt.schemas)
        return ReadPrompt(ids, stream, grammar, form.parser(tools))

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
        tags=tokenizer.tags,
        bos_token="" if bos is None else tokenizer.decode([bos], skip_special=False),
        eos_token=tokenizer.decode([eos[-1]], skip_special=False) if eos else "",
    )
