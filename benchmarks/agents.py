"""What a turn of an agent costs beyond the inference in it: shields aside, all that the turn loop and its store do.

In one process, on the real engine and a SQLite file: the same prompt alternately as a bare inference and as the turn
of a new session, streamed. A figure is the difference of one such pair.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from backends.config import INPROC, BackendSettings, EngineSettings
from backends.context import CallContext
from backends.inference import ChatPrompt, GenerateRequest, Sampling
from backends.stack import Backends, open_backends
from benchmarks.report import Row
from benchmarks.sides import LLM
from generated import models as m

PAIRS = 20
"""Pairs behind each sample, of which the sample is the median."""
TOKENS = 16
INSTRUCTIONS = "You answer briefly and kindly."
QUESTION = "Give me three tips for staying healthy."


def measure(models: Path, *, threads: int, repeat: int) -> list[Row]:
    """The row of the overhead, in milliseconds."""
    with tempfile.TemporaryDirectory(prefix="onnxstack-bench-") as name:
        engine = EngineSettings(address=INPROC, threads=threads)
        settings = BackendSettings(data_dir=Path(name), models_dir=models, engine=engine)
        with contextlib.closing(open_backends(settings)) as backends:
            config = m.AgentConfig(
                model=LLM,
                instructions=INSTRUCTIONS,
                enable_session_persistence=True,
                sampling_params=m.SamplingParams(max_tokens=TOKENS, repetition_penalty=1.0),
            )
            agent_id = backends.agents.create(CallContext(request_id="bench"), config)
            _pair(backends, agent_id)  # loads the model
            samples = [_median(sorted(_pair(backends, agent_id) for _ in range(PAIRS))) for _ in range(repeat)]
    return [Row("agent turn beyond its inference", "ms", samples, goal="<= 10 ms")]


def _pair(backends: Backends, agent_id: str) -> float:
    """Milliseconds that a turn takes longer than the same inference."""
    context = CallContext(request_id="bench")
    bare_s = _timed(_bare(backends, context))
    session_id = backends.agents.create_session(context, agent_id, "bench")
    turn_s = _timed(_turn(backends, context, agent_id, session_id))
    return (turn_s - bare_s) * 1000


def _turn(backends: Backends, context: CallContext, agent_id: str, session_id: str) -> Iterator[object]:
    """The turn from its first check on, as `_bare` is the inference from its first."""
    request = m.CreateAgentTurnRequest(messages=[m.UserMessage(content=QUESTION)])
    yield from backends.agents.run_turn(context, agent_id, session_id, request)


def _bare(backends: Backends, context: CallContext) -> Iterator[object]:
    generator, model = backends.models.generator(context, LLM)
    messages = (m.SystemMessage(content=INSTRUCTIONS), m.UserMessage(content=QUESTION))
    sampling = Sampling(max_tokens=TOKENS, repetition_penalty=1.0)
    yield from generator.generate(context, GenerateRequest(model, ChatPrompt(messages), sampling))


def _timed(events: Iterator[object]) -> float:
    """Seconds to the last event."""
    started = time.perf_counter()
    for _ in events:
        pass
    return time.perf_counter() - started


def _median(ordered: list[float]) -> float:
    return ordered[len(ordered) // 2]
