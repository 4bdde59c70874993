"""`python -m benchmarks [SECTION ...] [--repeat N] [--json FILE]`: one command, one table.

Sections: generation, features, process, embeddings, vectors, agents, start; and, only when it is named because it
installs an environment of its own, reference: our server beside the reference Llama Stack server in front of llama.cpp.

Peers run on the same weights in the same run, taking turns with our side, and are left out (and said so) where they are
not installed: `make bench` installs llama.cpp as a wheel and sentence-transformers; a native build of
llama.cpp is used when LLAMA_SERVER names its server.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path

from backends.models.store import ModelStore
from benchmarks import agents, embeddings, features, process, vectors
from benchmarks.clients import llama_client, stack_client
from benchmarks.loads import Ask, Load, Outcome, run
from benchmarks.peers import llama_server, llama_variants
from benchmarks.reference import burst
from benchmarks.report import Row, show
from benchmarks.sides import EMBEDDER, LLM, EngineProcess, cold, stack_server, token_counter
from benchmarks.weights import original, peer_gguf

SECTIONS = ("generation", "features", "process", "embeddings", "vectors", "agents", "start")
ON_DEMAND = ("reference",)


def main() -> None:
    """Run the chosen sections and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "sections",
        nargs="*",
        default=[],
        help=f"of {', '.join((*SECTIONS, *ON_DEMAND))}; all but {', '.join(ON_DEMAND)} when none is named",
    )
    parser.add_argument("--repeat", type=int, default=5, help="samples of each figure (default 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of every engine")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/onnxstack-bench").expanduser())
    parser.add_argument("--json", type=Path, default=None, help="also write all samples to this file")
    options = parser.parse_args()
    if unknown := set(options.sections) - {*SECTIONS, *ON_DEMAND}:
        parser.error(f"unknown sections: {', '.join(sorted(unknown))}")
    chosen = options.sections or list(SECTIONS)
    options.cache.mkdir(parents=True, exist_ok=True)
    models = options.cache / "models"
    store = ModelStore(models)
    for name in (LLM, EMBEDDER):
        store.pull(name)
    rows: list[Row] = []
    if "generation" in chosen:
        rows += generation(models, options.cache, options.threads, options.repeat)
    if "features" in chosen:
        rows += features.measure(models, threads=options.threads, repeat=options.repeat)
    if "process" in chosen:
        rows += process.measure(models, options.threads, options.repeat)
    if "embeddings" in chosen:
        weights = original(EMBEDDER, options.cache)
        rows += embeddings.measure(models, weights, threads=options.threads, repeat=options.repeat)
    if "vectors" in chosen:
        rows += vectors.measure(repeat=options.repeat)
    if "agents" in chosen:
        rows += agents.measure(models, threads=options.threads, repeat=options.repeat)
    if "reference" in chosen:
        rows += burst.measure(models, options.cache, threads=options.threads, repeat=options.repeat)
    if "start" in chosen:
        rows.append(Row("server with pulled models, ready", "s", starts(models, options.repeat), goal="<= 5 s"))
    show(rows, options.json)


def starts(models: Path, repeat: int) -> list[float]:
    """Seconds from the command to readiness."""
    seconds = []
    for _ in range(repeat):
        with stack_server(models) as (_, ready_s):
            seconds.append(ready_s)
    return seconds


def generation(models: Path, cache: Path, threads: int, repeat: int) -> list[Row]:
    """Decode, prefill and bursts: bare engine, our server and llama.cpp's, each load on each side in turns."""
    loads = [Load.named(n) for n in ("four_short", "single_stream", "sixteen_short", "burst_mixed", "prefill_1000")]
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    variants = llama_variants()
    gguf = peer_gguf(cache) if variants else None
    for _ in range(repeat):
        for side in ("engine", "http", *variants):
            with contextlib.ExitStack() as stack:
                if side == "engine":
                    engine = EngineProcess(models, threads)
                    stack.callback(engine.close)
                    for load in loads:
                        outcomes.setdefault((side, load.name), []).append(engine.run(load))
                    continue
                ask: Ask
                if side == "http":
                    url, _ = stack.enter_context(stack_server(models, **cold(threads)))
                    ask = stack_client(url, LLM)
                elif gguf is not None:
                    ask = llama_client(stack.enter_context(llama_server(side, gguf, threads=threads)))
                ask("Hello.", 4)
                for load in loads:
                    outcomes.setdefault((side, load.name), []).append(run(load, ask))
    return _generation_rows(models, loads, variants, outcomes)


def _generation_rows(
    models: Path, loads: list[Load], variants: list[str], outcomes: dict[tuple[str, str], list[Outcome]]
) -> list[Row]:
    tokens = token_counter(models)

    def speed(outcome: Outcome) -> float:
        return outcome.speed(tokens)

    rows = []
    goals = {"single_stream": ">= 1.0x", "sixteen_short": ">= 1.4x"}
    for load in loads:
        engine, http = outcomes["engine", load.name], outcomes["http", load.name]
        if load.name == "prefill_1000":
            size = tokens(load.prompts[0])
            ours = [size / outcome.wall_s for outcome in engine]
            for variant in variants:
                peer = [size / outcome.wall_s for outcome in outcomes[variant, load.name]]
                rows.append(Row(f"prefill of {size} tokens, engine", "tokens/s", ours, f"llama.cpp {variant}", peer))
            continue
        for variant in variants or [""]:
            peer_outcomes = outcomes.get((variant, load.name), [])
            name = f"llama.cpp {variant} server" if variant else ""
            peer = [speed(o) for o in peer_outcomes]
            ours = [speed(o) for o in engine]
            rows.append(Row(f"{load.name}, engine", "tokens/s", ours, name, peer, goals.get(load.name, "")))
            rows.append(Row(f"{load.name}, HTTP", "tokens/s", [speed(o) for o in http], name, peer))
            firsts = [o.first_s() for o in peer_outcomes]
            rows.append(Row(f"{load.name}, HTTP, first text p50", "s", [o.first_s() for o in http], name, firsts))
        if load.name in ("sixteen_short", "burst_mixed"):
            served, bare = [speed(o) for o in http], [speed(o) for o in engine]
            rows.append(Row(f"{load.name}, HTTP beside engine", "tokens/s", served, "engine", bare, ">= 0.85x"))
    return rows


if __name__ == "__main__":
    main()
