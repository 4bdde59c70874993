"""The engine in a process of its own beside the engine within the HTTP worker: the same server, the same loads."""

from __future__ import annotations

from pathlib import Path

from benchmarks.clients import stack_client
from benchmarks.loads import Load, Outcome, run
from benchmarks.report import Row
from benchmarks.sides import LLM, stack_server, token_counter

FORMS = {"process": "", "inproc": "inproc"}
"""The setting `engine.address` of each."""
LOADS = ("single_stream", "sixteen_short", "burst_mixed")


def measure(models: Path, threads: int, repeat: int) -> list[Row]:
    """Tokens per second and time to the first text over HTTP; the forms take turns, each time on a new server."""
    tokens = token_counter(models)
    loads = [Load.named(name) for name in LOADS]
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    for turn in range(repeat):
        for form in FORMS if turn % 2 else reversed(FORMS):
            settings = {
                "ONNXSTACK_ENGINE__THREADS": str(threads),
                "ONNXSTACK_ENGINE__ADDRESS": FORMS[form],
                "ONNXSTACK_ENGINE__PREFIX_CACHE_MB": "0",
            }
            with stack_server(models, **settings) as (url, _):
                ask = stack_client(url, LLM)
                ask("Hello.", 4)
                for load in loads:
                    outcomes.setdefault((form, load.name), []).append(run(load, ask))
    rows = []
    for load in loads:
        process, inproc = outcomes["process", load.name], outcomes["inproc", load.name]
        speeds = [[outcome.speed(tokens) for outcome in form] for form in (process, inproc)]
        firsts = [[outcome.first_s() for outcome in form] for form in (process, inproc)]
        rows.append(Row(f"{load.name}, HTTP, engine process", "tokens/s", speeds[0], "inproc", speeds[1], ">= 1.0x"))
        rows.append(Row(f"{load.name}, first text p50", "s", firsts[0], "inproc", firsts[1], "<= 1.0x"))
    return rows
