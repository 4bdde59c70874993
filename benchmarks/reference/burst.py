"""A burst of mixed prompts over HTTP: our server beside the reference in front of llama.cpp, on the same weights."""

from __future__ import annotations

import contextlib
from pathlib import Path

from benchmarks.clients import stack_client
from benchmarks.cpu import servers_cpu_s
from benchmarks.loads import Load, Outcome, run
from benchmarks.peers import llama_variants
from benchmarks.reference.stack import reference_server
from benchmarks.report import Row
from benchmarks.sides import LLM, cold, stack_server, token_counter

SIDES = ("onnxstack", "reference")


def measure(models: Path, cache: Path, *, threads: int, repeat: int) -> list[Row]:
    """Tokens per second, time to the first text and tokens per CPU second of the servers, client aside.

    The sides take turns, each time on a new server, asked by the same client in the same words. Without llama.cpp the
    reference is left out.
    """
    tokens = token_counter(models)
    load = Load.named("burst_mixed")
    variants = llama_variants()
    outcomes: dict[str, list[Outcome]] = {side: [] for side in SIDES}
    cheapness: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(repeat):
        for side in SIDES if turn % 2 else reversed(SIDES):
            with contextlib.ExitStack() as stack:
                if side == "onnxstack":
                    url, _ = stack.enter_context(stack_server(models, **cold(threads)))
                elif variants:
                    url = stack.enter_context(reference_server(cache, threads=threads))
                else:
                    continue
                ask = stack_client(url, LLM)
                ask("Hello.", 4)
                before_s = servers_cpu_s()
                outcome = run(load, ask)
                after_s = servers_cpu_s()
                outcomes[side].append(outcome)
                if before_s is not None and after_s is not None:
                    cheapness[side].append(outcome.speed(tokens) * outcome.wall_s / (after_s - before_s))
    name = f"reference before llama.cpp {variants[0]}" if variants else ""
    ours, peer = (outcomes[side] for side in SIDES)
    speeds = [[outcome.speed(tokens) for outcome in side] for side in (ours, peer)]
    firsts = [[outcome.first_s() for outcome in side] for side in (ours, peer)]
    return [
        Row(f"{load.name}, HTTP, beside the reference", "tokens/s", speeds[0], name, speeds[1], ">= 3x"),
        Row(f"{load.name}, HTTP, first text p50", "s", firsts[0], name, firsts[1]),
        Row(f"{load.name}, HTTP, per CPU second", "tokens", cheapness["onnxstack"], name, cheapness["reference"]),
    ]
