"""The loads that drive every side alike, and what came of running one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOADS = Path(__file__).parent / "loads"


@dataclass(frozen=True, slots=True)
class Load:
    """Prompts, the tokens asked of each, and how they arrive: `together` or `one after another`."""

    name: str
    description: str
    arrival: str
    max_tokens: int
    prompts: list[str]

    @classmethod
    def named(cls, name: str) -> Load:
        """Read `loads/<name>.json`."""
        return cls(**json.loads((LOADS / f"{name}.json").read_text()))


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. first_s, total_s: seconds from sending the request to its first text and to its end."""

    text: str
    first_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of a load. wall_s: seconds from the first request sent to the last answer complete."""

    wall_s: float
    answers: list[Answer]

    def speed(self, tokens: Callable[[str], int]) -> float:
        """Tokens per second of all answers together. tokens: counts those of a text."""
        return sum(tokens(answer.text) for answer in self.answers) / self.wall_s

    def first_s(self) -> float:
        """Median seconds to the first text."""
        ordered = sorted(answer.first_s for answer in self.answers)
        return ordered[len(ordered) // 2]


Ask = Callable[[str, int], Answer]
"""Send one prompt with its token limit and read the whole streamed answer."""


def run(load: Load, ask: Ask) -> Outcome:
    """Drive one side with the load; one thread for each prompt when they arrive together."""
    if load.arrival == "one after another":
        started = time.perf_counter()
        answers = [ask(prompt, load.max_tokens) for prompt in load.prompts]
        return Outcome(time.perf_counter() - started, answers)
    slots: list[Answer | Exception | None] = [None] * len(load.prompts)
    gate = threading.Barrier(len(load.prompts) + 1)

    def client(position: int) -> None:
        gate.wait()
        try:
            slots[position] = ask(load.prompts[position], load.max_tokens)
        except Exception as error:
            slots[position] = error

    threads = [threading.Thread(target=client, args=(i,)) for i in range(len(load.prompts))]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    wall_s = time.perf_counter() - started
    answers = []
    for slot in slots:
        if not isinstance(slot, Answer):
            raise RuntimeError(f"a client of load {load.name} failed: {slot!r}")
        answers.append(slot)
    return Outcome(wall_s, answers)
