"""What a vector db is asked for a given content: its text, or what a model makes of it."""

from __future__ import annotations

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError

from backends.context import CallContext
from backends.errors import BadRequest
from backends.generation import collect
from backends.inference import ChatPrompt, GenerateRequest, Sampling
from backends.onnx.template_sandbox import MAX_CHARACTERS, BoundedEnvironment
from backends.resources.models import Models
from generated.models import (
    InterleavedContent,
    LLMRAGQueryGeneratorConfig,
    RAGQueryGeneratorConfig,
    TextContentItem,
    UserMessage,
)

SEPARATOR = " "
MAX_TEMPLATE = 20_000
"""Characters of a template."""
MAX_TOKENS = 256
"""Tokens of a model's answer that are searched for; an embedding model takes no more."""


def texts_of(content: InterleavedContent) -> list[str]:
    """The texts of content, item by item; images have none."""
    items = content if isinstance(content, list) else [content]
    texts = (item if isinstance(item, str) else item.text for item in items if isinstance(item, str | TextContentItem))
    return [text for text in texts if text.strip()]


def question_of(
    context: CallContext,
    content: InterleavedContent,
    generator: RAGQueryGeneratorConfig | None,
    models: Models,
    *,
    where: str,
) -> str:
    """The text to search for, blank if `content` has none.

    generator: joins the texts by its separator, or asks its model with its template, which sees them as `messages`.
    An answer without text leaves the texts themselves. where: JSON pointer of the generator.

    Raises:
        UnknownReference: no such model. BadRequest: it is no LLM, or the template cannot be rendered. As
        `TextGenerator.generate`.
    """
    texts = texts_of(content)
    if isinstance(generator, LLMRAGQueryGeneratorConfig):
        return _asked(context, texts, generator, models, where) or SEPARATOR.join(texts)
    return (SEPARATOR if generator is None else generator.separator).join(texts)


def _asked(
    context: CallContext, texts: list[str], config: LLMRAGQueryGeneratorConfig, models: Models, where: str
) -> str:
    generator, model = models.generator(context, config.model, where=f"{where}/model")
    prompt = rendered(config.template, texts, where=f"{where}/template")
    if not texts:
        return ""
    request = GenerateRequest(
        model, ChatPrompt((UserMessage(content=prompt),)), Sampling(max_tokens=MAX_TOKENS), priority="interactive"
    )
    return collect(generator.generate(context, request)).text.strip()


def rendered(template: str, texts: list[str], *, where: str) -> str:
    """The template with `messages`, in the sandbox of chat templates. Raises BadRequest."""
    if len(template) > MAX_TEMPLATE:
        raise BadRequest(f"the template has {len(template)} characters, at most {MAX_TEMPLATE} are taken", where=where)
    environment = BoundedEnvironment()
    try:
        compiled = environment.from_string(template)
        chunks: list[str] = []
        size = 0
        with environment.budget():
            for chunk in compiled.generate(messages=texts):
                size += len(chunk)
                if size > MAX_CHARACTERS:
                    raise SecurityError(f"it writes more than {MAX_CHARACTERS} characters")
                chunks.append(chunk)
    except RecursionError as error:
        raise BadRequest("the template calls itself without end, or is nested too deeply", where=where) from error
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BadRequest(f"the template cannot be rendered: {str(error)[:300]}", where=where) from error
    prompt = "".join(chunks)
    if not prompt.strip():
        raise BadRequest("the template renders to nothing; `{{ messages }}` is what was asked", where=where)
    return prompt
