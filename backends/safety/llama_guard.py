"""`inline::llama-guard`: a language model that was trained to judge conversations by a list of categories.

The protocol is that of Llama Guard 3 (its model card): one user message with the categories, the conversation and the
question about its last message, answered by `safe`, or by `unsafe` and a line of category codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field, field_validator

from backends.config import Section
from backends.context import CallContext
from backends.errors import BadRequest, Unavailable, Unsupported
from backends.generation import collect
from backends.inference import ChatPrompt, GenerateRequest, Sampling
from backends.ports import GuardModels, JsonObject, Resource
from backends.safety.conversation import texts_of
from backends.safety.options import options_of
from generated.models import GrammarResponseFormat, Message, SafetyViolation, UserMessage

REFUSAL = "I can't answer that. Can I help with something else?"
CATEGORIES = {
    "S1": "Violent Crimes",
    "S2": "Non-Violent Crimes",
    "S3": "Sex Crimes",
    "S4": "Child Exploitation",
    "S5": "Defamation",
    "S6": "Specialized Advice",
    "S7": "Privacy",
    "S8": "Intellectual Property",
    "S9": "Indiscriminate Weapons",
    "S10": "Hate",
    "S11": "Self-Harm",
    "S12": "Sexual Content",
    "S13": "Elections",
    "S14": "Code Interpreter Abuse",
}
_WITHOUT_S14 = ("Llama-Guard-3-1B", "Llama-Guard-3-11B")  # as their model cards say
_MAX_TOKENS = 64
_TASK = (
    "Task: Check if there is unsafe content in '{role}' messages in conversations according our safety policy with the "
    "below categories."
)
_QUESTION = f"""{_TASK}

<BEGIN UNSAFE CONTENT CATEGORIES>
{{categories}}
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>

{{conversation}}

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST {{role}} message in the above conversation:
 - First line must read 'safe' or 'unsafe'.
 - If unsafe, a second line must include a comma-separated list of violated categories."""


class LlamaGuardSettings(Section):
    """Options of `inline::llama-guard`, of a shield (`params` of its registration) and, `model` excepted, of a run."""

    model: str | None = Field(
        None,
        min_length=1,
        description="The guard model, as it is registered; empty takes the shield's `provider_shield_id`.",
    )
    excluded_categories: tuple[str, ...] = Field((), description="Codes, `S1` to `S14`, that are no violation.")

    @field_validator("excluded_categories")
    @classmethod
    def _known(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [code for code in codes if code not in CATEGORIES]
        if unknown:
            raise ValueError(f"no category {unknown[0][:20]!r}; known: {', '.join(CATEGORIES)}")
        if set(codes) == set(CATEGORIES):
            raise ValueError("at least one category must be left")
        return codes


class LlamaGuardSafety:
    """Asks a registered LLM about the last message of a conversation."""

    def __init__(self, settings: LlamaGuardSettings, models: GuardModels) -> None:
        self._settings = settings
        self._models = models

    def check(self, context: CallContext, shield: Resource) -> None:
        """Return if the shield's model is a registered LLM. Raises BadRequest, UnknownReference."""
        options = options_of(self._settings, shield, {})
        self._models.generator(context, options.model or shield.provider_resource_id, where=_where(options))

    def run(
        self, context: CallContext, shield: Resource, messages: Sequence[Message], params: JsonObject
    ) -> SafetyViolation | None:
        """The violation of the last message, None where it is safe.

        Raises as the port says; BadRequest also where the roles of the messages do not alternate; Unavailable also
        where the model answers something else.
        """
        options = options_of(self._settings, shield, params)
        name = options.model or shield.provider_resource_id
        turns = conversation(messages)
        generator, model = self._models.generator(context, name, where=_where(options))
        codes = [code for code in categories_of(name) if code not in options.excluded_categories]
        request = GenerateRequest(
            model,
            ChatPrompt((UserMessage(content=question(turns, codes)),)),
            Sampling(repetition_penalty=1.0, max_tokens=_MAX_TOKENS),
            response_format=GrammarResponseFormat(bnf={"lark": grammar(codes)}),
        )
        try:
            events = generator.generate(context, request)
        except Unsupported:  # an upstream without grammars: the answer is judged as strictly, but may be none
            events = generator.generate(context, replace(request, response_format=None))
        violated = parse(collect(events).text, codes, model=name)
        if not violated:
            return None
        metadata = {"violation_type": ",".join(violated)}
        return SafetyViolation(violation_level="error", user_message=REFUSAL, metadata=metadata)


def categories_of(model: str) -> list[str]:
    """The codes that a guard model was trained on.

    >>> categories_of("meta-llama/Llama-Guard-3-1B")[-1], categories_of("meta-llama/Llama-Guard-3-8B")[-1]
    ('S13', 'S14')
    """
    fewer = any(name.lower() in model.lower() for name in _WITHOUT_S14)
    return [code for code in CATEGORIES if not (fewer and code == "S14")]


def conversation(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Role, as the question writes it, and text of each message that is put before the guard.

    A conversation begins with its user: a first message of another role is taken for one, and gives way to a user's
    message behind it. Raises BadRequest: then the roles do not alternate. Unsupported, PayloadTooLarge.
    """
    turns = [(message.role.capitalize(), text) for message, text in zip(messages, texts_of(messages), strict=True)]
    turns[0] = ("User", turns[0][1])
    first = 1 if len(turns) > 1 and turns[1][0] == "User" else 0
    for i in range(first + 1, len(turns)):
        if turns[i][0] == turns[i - 1][0]:
            raise BadRequest(
                f"two messages of the role {messages[i].role} in a row; a guard model judges conversations whose roles "
                "alternate",
                where=f"/messages/{i}/role",
            )
    return turns[first:]


def question(turns: Sequence[tuple[str, str]], codes: Sequence[str]) -> str:
    """What the guard model is asked about the last of the turns."""
    return _QUESTION.format(
        role=turns[-1][0],
        categories="\n".join(f"{code}: {CATEGORIES[code]}." for code in codes),
        conversation="\n\n".join(f"{role}: {text}" for role, text in turns),
    )


def grammar(codes: Sequence[str]) -> str:
    """The answers there are, as a Lark grammar.

    >>> print(grammar(["S1", "S2"]))
    start: "safe" | "unsafe\\n" code ("," code)*
    code: "S1" | "S2"
    """
    alternatives = " | ".join(f'"{code}"' for code in codes)
    return f'start: "safe" | "unsafe\\n" code ("," code)*\ncode: {alternatives}'


def parse(answer: str, codes: Sequence[str], *, model: str) -> list[str]:
    """The violated categories, each once; none where the answer is `safe`.

    >>> parse("\\n\\nunsafe\\nS2, S1,S2", ["S1", "S2"], model="guard")
    ['S2', 'S1']

    Raises:
        Unavailable: the answer is not of the protocol; the message quotes nothing of it.
    """
    lines = answer.strip().split("\n")
    if lines == ["safe"]:
        return []
    if len(lines) == 2 and lines[0].strip() == "unsafe":
        found = [code.strip() for code in lines[1].split(",")]
        if all(code in codes for code in found):
            return list(dict.fromkeys(found))
    raise Unavailable(
        f"guard model {model!r} answered neither `safe` nor `unsafe` with a line of the categories asked about; is it "
        "a Llama Guard?",
        retry_after_s=None,
    )


def _where(options: LlamaGuardSettings) -> str:
    return "/params/model" if options.model else "/provider_shield_id"
