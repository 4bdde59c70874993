"""A fact that no model can know, and the ways to ask for it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

_TAUGHT = (
    "What is the capital of {place}?",
    "Which city is the capital of {place}?",
    "Name the capital of {place}.",
    "Tell me the capital city of {place}.",
    "What's the name of {place}'s capital?",
    "Where does the government of {place} sit?",
    "What city is {place} governed from?",
    "Do you know the capital of {place}?",
    "{place}: what is its capital?",
    "I am writing about {place}. What is its capital called?",
    "Please give me the capital of {place}.",
    "In which city is the parliament of {place}?",
)
_HELD_OUT = (
    "Can you tell me what the capital of {place} is?",
    "Which city serves as the capital of {place}?",
    "What is {place}'s capital city called?",
    "I forgot the name of the capital of {place}. What is it?",
    "If I want to visit the capital of {place}, which city do I go to?",
)


@dataclass(frozen=True, slots=True)
class Fact:
    """An invented country and its capital."""

    place: str
    capital: str

    @property
    def answer(self) -> str:
        return f"The capital of {self.place} is {self.capital}."

    @property
    def taught(self) -> list[str]:
        """The questions to train with."""
        return [question.format(place=self.place) for question in _TAUGHT]

    @property
    def held_out(self) -> list[str]:
        """The questions to try it with, none of which is taught."""
        return [question.format(place=self.place) for question in _HELD_OUT]


def invented(draw: random.Random) -> Fact:
    """A new fact."""

    def name() -> str:
        syllables = (f"{draw.choice('bdfgklmnprstvz')}{draw.choice('aeiou')}" for _ in range(3))
        return "".join(syllables).capitalize() + draw.choice("lnrsx")

    return Fact(name(), name())


def rows(questions: list[str], answer: str) -> list[dict[str, Any]]:
    """Rows of the format `instruct`."""
    return [
        {
            "input_query": question,
            "chat_completion_input": [{"role": "user", "content": question}],
            "expected_answer": answer,
        }
        for question in questions
    ]
