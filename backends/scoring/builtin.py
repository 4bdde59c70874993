"""The functions that are there from the start, by the type of provider that runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backends.scoring.benchmark import PASS_AT_1, TOOL_CALLS
from backends.scoring.braintrust import METRICS
from generated.models import (
    BasicScoringFnParams,
    LLMAsJudgeScoringFnParams,
    RegexParserScoringFnParams,
    ScoringFnParams,
)

LATIN: Mapping[str, str] = dict(zip("أبجدঅবসডＡＢＣＤ", "ABCD" * 3, strict=True))
"""The letters of answers in Arabic, Bengali and full-width form."""
_ANSWER_WORDS = (
    "Answer",
    "Antwort",
    "Réponse",
    "Respuesta",
    "Resposta",
    "Risposta",
    "Antwoord",
    "Svar",
    "Vastaus",
    "Odpowiedź",
    "Odpověď",
    "Odpoveď",
    "Odgovor",
    "Ответ",
    "Відповідь",
    "Отговор",
    "Одговор",
    "Απάντηση",
    "Cevap",
    "Cavab",
    "Válasz",
    "Răspuns",
    "Vastus",
    "Atbilde",
    "Atsakymas",
    "Përgjigje",
    "Jawaban",
    "Jawapan",
    "Sagot",
    "Trả lời",
    "คำตอบ",
    "الإجابة",
    "الجواب",
    "תשובה",
    "پاسخ",
    "جواب",
    "उत्तर",
    "উত্তর",
    "답변",
    "答案",
    "答え",
    "Jibu",
    "Ìdáhùn",
    "Amsa",
    "Jawab",
)
"""How languages call an answer."""


LETTERS = "A-D" + "".join(LATIN)


def _patterns() -> list[str]:
    return [rf"(?i:{word})[*\s]*[:\x{{FF1A}}][*\s]*\(?([{LETTERS}])(?:[^\pL\pN]|$)" for word in _ANSWER_WORDS]


SIMPLE_QA_PROMPT = """Grade an answer to a question against the reference answer.

Question: {input_query}
Reference answer: {expected_answer}
Answer to grade: {generated_answer}

Reply with one letter:
A: CORRECT, it holds everything of the reference and contradicts nothing of it
B: INCORRECT, it contradicts the reference
C: NOT_ATTEMPTED, it leaves out what the reference says and contradicts nothing

Letter:"""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A function of a type of provider. params: None where a request must bring them."""

    provider_type: str
    description: str
    params: ScoringFnParams | None = None


def _braintrust() -> dict[str, BuiltIn]:
    average = BasicScoringFnParams(aggregation_functions=["average"])
    return {name: BuiltIn("inline::braintrust", metric.description, average) for name, metric in METRICS.items()}


BUILT_IN: Mapping[str, BuiltIn] = {
    "basic::equality": BuiltIn(
        "inline::basic",
        "1.0 if generated_answer equals expected_answer, else 0.0",
        BasicScoringFnParams(aggregation_functions=["accuracy"]),
    ),
    "basic::subset_of": BuiltIn(
        "inline::basic",
        "1.0 if generated_answer contains expected_answer, else 0.0",
        BasicScoringFnParams(aggregation_functions=["accuracy"]),
    ),
    "basic::regex_parser_multiple_choice_answer": BuiltIn(
        "inline::basic",
        "Finds the letter of a multiple-choice answer in many languages and compares it with expected_answer",
        RegexParserScoringFnParams(parsing_regexes=_patterns(), aggregation_functions=["accuracy"]),
    ),
    "llm-as-judge::base": BuiltIn(
        "inline::llm-as-judge", "Asks a model to judge; judge_model and prompt_template come with the call"
    ),
    "llm-as-judge::405b-simpleqa": BuiltIn(
        "inline::llm-as-judge",
        "Asks Llama 3.1 405B whether an answer is correct (A), incorrect (B) or not attempted (C)",
        LLMAsJudgeScoringFnParams(
            judge_model="meta-llama/Llama-3.1-405B-Instruct",
            prompt_template=SIMPLE_QA_PROMPT,
            judge_score_regexes=[r"\b([ABC])\b"],
            aggregation_functions=["categorical_count"],
        ),
    ),
    **_braintrust(),
    PASS_AT_1: BuiltIn(
        "inline::benchmark",
        "1.0 if the code in generated_answer passes the row's test in the sandbox; accuracy is pass@1",
        BasicScoringFnParams(aggregation_functions=["accuracy"]),
    ),
    TOOL_CALLS: BuiltIn(
        "inline::benchmark",
        "1.0 if the tool calls, or those written in generated_answer, are calls that expected_answer allows",
        BasicScoringFnParams(aggregation_functions=["accuracy"]),
    ),
}

TAKES: Mapping[str, tuple[str, ...]] = {
    "inline::basic": ("basic", "regex_parser"),
    "inline::llm-as-judge": ("llm_as_judge",),
    "inline::braintrust": ("basic", "llm_as_judge"),
    "inline::benchmark": ("basic",),
}
"""The types of params that a type of provider takes; one without an entry takes all."""
