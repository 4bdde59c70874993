"""The scoring functions of benchmarks: code that passes its test in the sandbox, and tool calls that are right."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from backends.context import CallContext
from backends.errors import BadRequest
from backends.in_order import in_order
from backends.ports import JsonObject, RowScorer
from backends.scoring.calls import calls_of, expected_calls, match
from backends.scoring.rows import text_of
from backends.scoring.settings import CodeScoringSettings
from generated.models import ScoringFnParams

if TYPE_CHECKING:
    from backends.resources.models import Models
    from backends.sandbox.bubblewrap import Bubblewrap
    from backends.sandbox.slots import Slots

PASS_AT_1, TOOL_CALLS = "benchmark::pass_at_1", "benchmark::tool_calls"
MAX_CODE = 200_000
"""Characters of an answer with its test."""
_WAIT_S = 600.0
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


class BenchmarkScoring:
    """Opens the functions. directory: for the locks that bound how many sandboxes run, shared by all workers."""

    def __init__(self, settings: CodeScoringSettings, directory: Path) -> None:
        from backends.sandbox.bubblewrap import Bubblewrap
        from backends.sandbox.settings import CodeInterpreterSettings
        from backends.sandbox.slots import Slots

        self._settings = settings
        self._sandbox = Bubblewrap(
            CodeInterpreterSettings(
                packages=(), timeout_s=settings.timeout_s, memory_mb=settings.memory_mb, max_files=0, max_output_kb=4
            )
        )
        self._slots = Slots(directory / "tests", settings.at_once)

    def open(
        self, context: CallContext, models: Models, function: str, given: ScoringFnParams | None, *, where: str
    ) -> RowScorer:
        """As the port says. Raises Unsupported: this machine has no sandbox, and why."""
        if function == TOOL_CALLS:
            return _ToolCalls()
        if function != PASS_AT_1:
            raise BadRequest(f"{function!r} is no function of benchmarks: {PASS_AT_1}, {TOOL_CALLS}", where=where)
        self._sandbox.check()
        return _PassAt1(self._sandbox, self._slots, self._settings.at_once)


class _PassAt1:
    """Runs the code of an answer with the test of its row (HumanEval, arXiv:2107.03374; pass@k with k = 1)."""

    def __init__(self, sandbox: Bubblewrap, slots: Slots, at_once: int) -> None:
        self._sandbox = sandbox
        self._slots = slots
        self._at_once = at_once

    def score(self, context: CallContext, rows: Iterable[JsonObject], *, where: str) -> Iterator[JsonObject]:
        """`{"score": 1.0 or 0.0, "result": "passed", "timed out" or what went wrong}` per row."""

        def tested(numbered: tuple[int, JsonObject]) -> JsonObject:
            said = self._passes(context, *program_of(numbered[1], where=f"{where}/{numbered[0]}"))
            return {"score": float(said == "passed"), "result": said}

        return in_order(tested, enumerate(rows), at_once=self._at_once, name="test")

    def _passes(self, context: CallContext, program: str, token: str) -> str:
        context.check()
        if not program:
            return "the code is too long to be run"
        with self._slots.hold(context, _WAIT_S):
            outcome = self._sandbox.run(context, program, ())
        if outcome.cause == "timeout":
            return "timed out"
        if outcome.code == 0:
            return "passed" if outcome.stdout == token else "the code ended before its test did"
        return outcome.stderr.strip().rpartition("\n")[2][:200] or f"exit code {outcome.code}"


def program_of(row: JsonObject, *, where: str) -> tuple[str, str]:
    """The program that tests a row's answer, and what it prints, and nothing else, where the test was passed.

    Columns: generated_answer, code or text with code in a fence; input_query, what comes before it; test, which
    defines `check(candidate)`; entry_point. An answer that defines no entry_point continues input_query.

    Raises:
        BadRequest: a column is missing. A program that is too long is "".
    """
    answer, prompt, test, entry = (
        text_of(row, column, where=where) for column in ("generated_answer", "input_query", "test", "entry_point")
    )
    if not entry.isidentifier():
        raise BadRequest(f"{entry!r} is no name of a function", where=f"{where}/entry_point")
    code = code_of(answer)
    defined = re.search(rf"^(?:async )?def {entry}\b", code, re.MULTILINE)
    # What the prompt imports and defines before the function, a model need not repeat.
    before, _, _ = prompt.partition(f"def {entry}")
    whole = f"{before}\n{code}" if defined else prompt + _continuation(answer)
    token = secrets.token_hex(16)
    program = (
        "import io, sys\n"
        "sys.stdout = io.StringIO()\n"
        "space = {'__name__': 'answer'}\n"
        f"exec(compile({_literal(whole)}, 'answer.py', 'exec'), space)\n"
        f"exec(compile({_literal(test)}, 'test.py', 'exec'), space)\n"
        f"space['check'](space[{entry!r}])\n"
        f"sys.__stdout__.write({token!r})\n"
    )
    return (program if len(program) <= MAX_CODE else "", token)


def code_of(answer: str) -> str:
    """The code of an answer: what stands in its fences, else all of it."""
    fenced = _FENCED.findall(answer)
    return "\n".join(fenced) if fenced else answer


def _continuation(answer: str) -> str:
    """The lines that continue a function: up to the first that is not of its body, as a base model goes on for ever."""
    kept: list[str] = []
    for line in code_of(answer).split("\n"):
        if kept and line and not line[0].isspace() and not line.startswith(("#", ")", "]", "}")):
            break
        kept.append(line)
    return "\n".join(kept)


def _literal(text: str) -> str:
    return repr(text.encode("utf-8", "replace").decode())


class _ToolCalls:
    """Compares the calls of an answer with those that its row allows, as syntax trees."""

    def score(self, context: CallContext, rows: Iterable[JsonObject], *, where: str) -> Iterator[JsonObject]:
        """`{"score": 1.0 or 0.0, "result": "right" or what is wrong}` per row."""
        for position, row in enumerate(rows):
            place = f"{where}/{position}"
            wanted = expected_calls(row, where=place)
            try:
                wrong = match(calls_of(row, where=place), wanted)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                wrong = "the answer holds no calls" if wanted else ""
            yield {"score": float(not wrong), "result": wrong or "right"}
