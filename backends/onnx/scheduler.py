"""Continuous batching: one thread that gives every sequence a slot and takes all of them forward together.

Each step does, in this order:

1. receive: move what was submitted to the waiting room; sleep when there is nothing to do.
2. sweep: end what its caller cancelled or whose deadline has passed.
3. prefill: feed prompt tokens of one sequence at a time, `prefill_chunk` of them when nothing decodes and what the
   `PrefillBudget` allows beside running sequences, so that their next token does not wait for a long prompt. What the
   prefix cache has of the prompt is copied instead. The last chunk yields the first token of the answer.
4. jump: where a grammar leaves no choice for several tokens, or where prompt lookup guesses them, one run appends them
   all; guesses count as far as they are what would have been chosen.
5. decode: one run [n, 1] gives every running sequence its next token.

Running sequences hold the slots 0 .. n - 1 without a gap. When one ends the last takes its slot (a copy of its KV, <
2 ms), so that a decode run always covers one range of the buffers. The sequence in prefill holds a slot above that
range.

Nothing that a sequence computes depends on what runs beside it: not which tokens share a run (`_chunk_length`), not
what is reused (`prefix_cache`), not when it jumps (`JUMP_FROM` is fixed).
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import structlog

from backends.errors import BadRequest, Cancelled, DeadlineExceeded, Overloaded, StackError, Unavailable
from backends.inference import Finish, GenerationEvent, StopReason
from backends.onnx.adapter import Adapter
from backends.onnx.admission import WaitingSequences
from backends.onnx.executor import Executor, Logits
from backends.onnx.grammar import Constraint
from backends.onnx.prefill_budget import PrefillBudget
from backends.onnx.prefix_cache import BLOCK, PrefixCache
from backends.onnx.sampling import log_probabilities
from backends.onnx.sequence import Sequence, SequenceEvents

JUMP_FROM = 4
"""Forced tokens from which a run of their own is worth it; fewer go through decode runs like any other."""
JUMP_TOKENS = 64
"""Forced tokens of one run at most."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Choice:
    token: int
    logprobs: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """What is there now (`running`, with the sequence in prefill, `waiting`, `kv_bytes`) and counters since the start.

    prompt_tokens: computed; reused_tokens: of prompts, taken from the prefix cache instead. prefix_hits: prompts of
    which a part was. decode_runs, decoded: runs that gave each running sequence a token, and the tokens that they gave;
    their ratio is the batch size. kv_bytes, kv_limit_bytes: of KV cache, slots and kept prefixes: in use, and at most.
    """

    running: int = 0
    waiting: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    prefix_hits: int = 0
    decode_runs: int = 0
    decoded: int = 0
    kv_bytes: int = 0
    kv_limit_bytes: int = 0


class Scheduler:
    """Owns an executor and the thread that drives it.

    queue_length: sequences that may wait while every slot is taken. prefill_chunk: prompt tokens of one run at most.
    idle_release_s: seconds without work after which the slots' memory is given back. now: seconds since the Unix
    epoch, for deadlines. clock: seconds, for measuring.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        queue_length: int,
        prefill_chunk: int,
        prefill_budget: PrefillBudget,
        idle_release_s: float = 1.0,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.perf_counter,
        name: str = "engine",
    ) -> None:
        self._executor = executor
        self._queue_length = queue_length
        self._prefill_chunk = prefill_chunk
        self._prefill_budget = prefill_budget
        self._idle_release_s = idle_release_s
        self._now = now
        self._clock = clock
        # A SimpleQueue may be put to from a destructor, also one that runs in the engine's thread: no lock to meet
        # twice.
        self._inbox: queue.SimpleQueue[Sequence | None] = queue.SimpleQueue()
        self._admission = threading.Lock()
        self._admitted = 0
        self._of_adapters: Counter[Adapter] = Counter()
        """Admitted sequences with each adapter."""
        self._closing = False
        self._waiting = WaitingSequences()
        self._prefixes = PrefixCache(executor.blocks)
        self._prefilling: Sequence | None = None
        self._prefill_slot = 0
        self._running: list[Sequence] = []
        """Index = slot."""
        self._outbox: list[tuple[Sequence, GenerationEvent | StackError]] = []
        """What this step has to tell; told together at its end, so that no reader wakes up amid the step."""
        self._used_slots = 0
        """Slots 0 .. used - 1 hold memory that has not been given back."""
        self._steps = self._prompt_tokens = self._reused_tokens = self._generated_tokens = 0
        self._finished = self._cancelled = self._failed = 0
        self._prefix_hits = self._decode_runs = self._decoded = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # ---- called by any thread

    def submit(self, sequence: Sequence) -> SequenceEvents:
        """Take the sequence into the queue; its events come through the returned iterator.

        Raises:
            Overloaded: every slot is taken and the queue is full. Unavailable: the engine is stopping or has stopped.
        """
        with self._admission:
            if self._closing or not self._thread.is_alive():
                raise Unavailable("the engine is stopping")
            if self._admitted >= self._executor.slots + self._queue_length:
                slots, waiting = self._executor.slots, self._queue_length
                raise Overloaded(f"{slots} requests are running and {waiting} are waiting; try again later")
            self._admitted += 1
            if sequence.adapter is not None:
                self._of_adapters[sequence.adapter] += 1
            sequence.wake = self._wake
            self._inbox.put(sequence)
        return SequenceEvents(sequence)

    def stats(self) -> SchedulerStats:
        """A snapshot; its members may be a step apart."""
        sequences, executor = self._in_slots(), self._executor
        running = len(sequences)
        tokens = sum(sequence.cached for sequence in sequences) + self.prefix_tokens
        return SchedulerStats(
            running=running,
            waiting=max(0, self._admitted - running),
            steps=self._steps,
            prompt_tokens=self._prompt_tokens,
            reused_tokens=self._reused_tokens,
            generated_tokens=self._generated_tokens,
            finished=self._finished,
            cancelled=self._cancelled,
            failed=self._failed,
            prefix_hits=self._prefix_hits,
            decode_runs=self._decode_runs,
            decoded=self._decoded,
            kv_bytes=tokens * executor.token_bytes,
            kv_limit_bytes=(executor.slots * executor.length + executor.blocks * BLOCK) * executor.token_bytes,
        )

    def of_adapter(self, adapter: Adapter) -> tuple[int, int]:
        """How many sequences with this adapter run, and how many wait."""
        count = sum(sequence.adapter is adapter for sequence in self._in_slots())
        return count, max(0, self._of_adapters[adapter] - count)

    def _in_slots(self) -> list[Sequence]:
        prefilling = self._prefilling
        return [*self._running, *([] if prefilling is None else [prefilling])]

    @property
    def prefix_tokens(self) -> int:
        """Tokens of earlier prompts whose KV is kept."""
        return self._prefixes.used * BLOCK

    def ping(self) -> None:
        """Return if the thread is there. Raises Unavailable."""
        if self._closing or not self._thread.is_alive():
            raise Unavailable("the engine has stopped")

    def close(self) -> None:
        """Refuse what comes and end what is there with Unavailable."""
        with self._admission:
            if not self._closing:
                self._closing = True
                self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _wake(self) -> None:
        self._inbox.put(None)

    # ---- the engine's thread

    def _run(self) -> None:
        try:
            while self._receive():
                try:
                    self._sweep()
                    self._prefill()
                    self._jump()
                    self._decode()
                except Exception:
                    log.exception("engine step failed")
                    self._prefixes.clear()
                    self._fail_slots(Unavailable("the engine failed in this step; the request was not completed"))
                self._tell()
                self._steps += 1
        finally:
            self._closing = True
            self._fail_all(Unavailable("the engine is stopping; the request was not completed"))

    def _receive(self) -> bool:
        """Fetch submissions, and block for them when there is nothing else to do. False when it is time to end."""
        while True:
            idle = not (self._running or self._prefilling or self._waiting)
            if self._closing:
                return False
            try:
                timeout = self._idle_release_s if self._used_slots else None
                sequence = self._inbox.get(block=idle, timeout=timeout)
            except queue.Empty:
                if not idle:
                    return True
                self._release_slots()
                continue
            if sequence is not None:
                self._waiting.push(sequence)

    def _sweep(self) -> None:
        """End the sequences that nobody waits for any more."""
        now = self._now()
        for sequence in [s for s in self._waiting if _unwanted(s, now)]:
            self._waiting.remove(sequence)
            self._abandon(sequence)
        if self._prefilling is not None and _unwanted(self._prefilling, now):
            sequence, self._prefilling = self._prefilling, None
            self._abandon(sequence)
        for slot in reversed(range(len(self._running))):
            if _unwanted(self._running[slot], now):
                self._abandon(self._vacate(slot))

    def _prefill(self) -> None:
        running = len(self._running)
        budget = self._prefill_budget.tokens(running, self._admitted - running) if running else self._prefill_chunk
        while budget > 0:
            if self._prefilling is None and not self._admit():
                return
            sequence = self._prefilling
            assert sequence is not None  # noqa: S101
            chunk = sequence.prompt[sequence.cached :][: self._chunk_length(sequence, budget)]
            end = sequence.cached + len(chunk)
            last = end == len(sequence.prompt)
            started = self._clock()
            try:
                logits = self._executor.prefill(
                    self._prefill_slot, chunk, sequence.cached, rows=int(last), top=sequence.by_top
                )
            except Exception as error:
                self._fault(sequence, error)
                self._prefilling = None
                return
            self._prefill_budget.measured(len(chunk), self._clock() - started)
            budget -= len(chunk)
            sequence.cached = end
            self._prompt_tokens += len(chunk)
            self._waiting.charge(sequence.caller, len(chunk))
            if not last:
                continue
            self._keep_prefix(sequence)
            if self._accept(sequence, self._choose(sequence, logits[0])):
                slot = len(self._running)
                if slot != self._prefill_slot:
                    self._executor.move(self._prefill_slot, slot, sequence.cached)
                self._running.append(sequence)
            self._prefilling = None
            self._tell()

    def _chunk_length(self, sequence: Sequence, budget: int) -> int:
        """Prompt tokens of the next run: what the budget allows, or one more, so that no single token is cut off.

        Logits are the same to the bit however a prompt is cut, except at one token: that runs through the kernels of
        decode, whose rounding differs (measured on ONNX Runtime 1.32, CPU, int8). Answers must not depend on the load.
        """
        left = len(sequence.prompt) - sequence.cached
        length = min(max(budget, 2), self._prefill_chunk, left)
        return left if left - length == 1 else length

    def _admit(self) -> bool:
        """Give the next waiting sequence the first slot above the running ones, and what is known of its prompt."""
        if len(self._running) >= self._executor.slots:
            return False
        sequence = self._waiting.pop()
        if sequence is None:
            return False
        self._prefilling = sequence
        self._prefill_slot = len(self._running)
        self._used_slots = max(self._used_slots, self._prefill_slot + 1)
        self._executor.begin(self._prefill_slot, sequence.adapter)
        for block in self._prefixes.match(sequence.prefix):
            self._executor.load(block, self._prefill_slot, sequence.cached)
            sequence.cached += BLOCK
        sequence.reused = sequence.cached
        self._reused_tokens += sequence.reused
        self._prefix_hits += sequence.reused > 0
        return True

    def _keep_prefix(self, sequence: Sequence) -> None:
        """Save the prompt's blocks while the slot still holds nothing but the prompt."""
        for position, block in self._prefixes.add(sequence.prefix):
            self._executor.save(self._prefill_slot, position, block)

    def _jump(self) -> None:
        """Append the tokens that are decided or guessed already, sequence by sequence, each with one run."""
        for slot in reversed(range(len(self._running))):
            sequence = self._running[slot]
            while len(sequence.forced) >= JUMP_FROM:
                if not self._append_forced(slot, sequence):
                    self._vacate(slot)
                    break
            else:
                if not self._append_guessed(slot, sequence):
                    self._vacate(slot)

    def _append_forced(self, slot: int, sequence: Sequence) -> bool:
        """Run the newest token and the forced ones behind it; False if the sequence ended or failed."""
        count = min(len(sequence.forced), JUMP_TOKENS, sequence.max_tokens - sequence.completion_tokens)
        tokens = [sequence.forced[i] for i in range(count)]
        logits = self._run_ahead(slot, sequence, tokens, rows=count + 1 if sequence.logprobs else 1)
        if logits is None:
            return False
        for position, token in enumerate(tokens):
            sequence.forced.popleft()
            sequence.sampler.take(token)
            sequence.cached += 1
            logprobs = _logprobs(sequence, logits[position], token) if sequence.logprobs else None
            if not self._accept(sequence, _Choice(token, logprobs)):
                return False
        sequence.cached += 1
        return self._accept(sequence, self._choose(sequence, logits[-1]))

    def _append_guessed(self, slot: int, sequence: Sequence) -> bool:
        """Run the newest token and a guess, and choose as long as that is what was guessed; False as above."""
        if sequence.lookup is None or sequence.forced:
            return True
        guess = sequence.lookup.guess()[: sequence.max_tokens - sequence.completion_tokens - 1]
        if not guess:
            return True
        logits = self._run_ahead(slot, sequence, guess, rows=len(guess) + 1)
        if logits is None:
            return False
        for right, row in enumerate(logits):
            sequence.cached += 1  # what the run put behind it is overwritten
            if not self._accept(sequence, self._choose(sequence, row)):
                return False
            if right == len(guess) or sequence.last != guess[right] or sequence.forced:
                sequence.lookup.checked(right)
                return True
        raise AssertionError("the row after the guess ends the loop")

    def _run_ahead(self, slot: int, sequence: Sequence, tokens: list[int], rows: int) -> Logits | None:
        """Append the newest token and `tokens`; logits after the last `rows`, None if the sequence failed."""
        ids = np.array([sequence.last, *tokens], np.int64)
        try:
            return self._executor.prefill(slot, ids, sequence.cached, rows=rows, top=sequence.by_top)
        except Exception as error:
            self._fault(sequence, error)
            return None

    def _decode(self) -> None:
        running = self._running
        if not running:
            return
        ids = np.fromiter((s.last for s in running), np.int64, len(running))
        past = np.fromiter((s.cached for s in running), np.int64, len(running))
        try:
            logits = self._executor.decode(0, ids, past, top=all(sequence.by_top for sequence in running))
        except Exception as error:
            while running:
                self._fault(running.pop(), error)
            return
        self._decode_runs += 1
        self._decoded += len(running)
        choices = [self._choose(sequence, row) for sequence, row in zip(running, logits, strict=True)]
        ended = []
        for slot, (sequence, choice) in enumerate(zip(running, choices, strict=True)):
            sequence.cached += 1
            if not self._accept(sequence, choice):
                ended.append(slot)
        for slot in reversed(ended):
            self._vacate(slot)

    def _choose(self, sequence: Sequence, logits: Logits) -> _Choice | None:
        """The sequence's next token; None if it failed instead."""
        try:
            if sequence.forced:
                token = sequence.forced.popleft()
                sequence.sampler.take(token)
            elif sequence.constraint is None:
                token = sequence.sampler.choose(logits)
            else:
                token = sequence.sampler.choose(sequence.constraint.masked(logits))
                if token not in sequence.ends:
                    self._follow_grammar(sequence, sequence.constraint, token)
            return _Choice(token, _logprobs(sequence, logits, token) if sequence.logprobs else None)
        except BadRequest as error:
            self._fail(sequence, error)
            return None
        except Exception as error:
            self._fault(sequence, error)
            return None

    @staticmethod
    def _follow_grammar(sequence: Sequence, constraint: Constraint, token: int) -> None:
        """Go on in the grammar by the chosen token and by all that it leaves no choice about."""
        constraint.accept(token)
        for forced in constraint.forced():
            constraint.accept(forced)
            sequence.forced.append(forced)

    def _accept(self, sequence: Sequence, choice: _Choice | None) -> bool:
        """Add the token to the answer; False if the sequence ended with it or has failed."""
        if choice is None:
            return False
        self._generated_tokens += 1
        if choice.token in sequence.ends:
            return self._finish(sequence, sequence.ends[choice.token])
        sequence.last = choice.token
        sequence.completion_tokens += 1
        if sequence.lookup is not None:
            sequence.lookup.add(choice.token)
        try:
            deltas = sequence.answer.push(choice.token, choice.logprobs)
        except Exception as error:
            self._fault(sequence, error)
            return False
        self._outbox += [(sequence, delta) for delta in deltas]
        if sequence.answer.stopped:
            return self._finish(sequence, "end_of_turn")
        if sequence.constraint is not None and sequence.constraint.complete and not sequence.forced:
            return self._finish(sequence, "end_of_turn")
        if sequence.completion_tokens >= sequence.max_tokens:
            return self._finish(sequence, "out_of_tokens")
        return True

    def _vacate(self, slot: int) -> Sequence:
        """Take the sequence out of its slot and close the gap with the last one."""
        sequence, last = self._running[slot], self._running[-1]
        if last is not sequence:
            self._executor.move(len(self._running) - 1, slot, last.cached)
            self._running[slot] = last
        self._running.pop()
        return sequence

    # ---- how a sequence ends: once, whatever else fails

    def _finish(self, sequence: Sequence, reason: StopReason) -> bool:
        self._outbox += [(sequence, delta) for delta in sequence.answer.flush()]
        self._finished += 1
        self._end(sequence, Finish(reason, len(sequence.prompt), sequence.completion_tokens, sequence.reused))
        return False

    def _abandon(self, sequence: Sequence) -> None:
        if sequence.cancelled:
            self._cancelled += 1
            self._end(sequence, Cancelled("the caller has gone"))
        else:
            self._fail(sequence, DeadlineExceeded("the deadline of the request has passed"))

    def _fault(self, sequence: Sequence, error: Exception) -> None:
        log.error("sequence failed", prompt_tokens=len(sequence.prompt), exc_info=error)
        self._fail(sequence, Unavailable("the engine failed while it worked on this request"))

    def _fail(self, sequence: Sequence, error: StackError) -> None:
        if not sequence.ended:
            self._failed += 1
            self._end(sequence, error)

    def _end(self, sequence: Sequence, event: Finish | StackError) -> None:
        sequence.ended = True
        self._waiting.charge(sequence.caller, sequence.completion_tokens)
        self._waiting.leave(sequence.caller)
        with self._admission:
            self._admitted -= 1
            if sequence.adapter is not None:
                self._of_adapters[sequence.adapter] -= 1
                if not self._of_adapters[sequence.adapter]:
                    del self._of_adapters[sequence.adapter]
        self._outbox.append((sequence, event))

    def _tell(self) -> None:
        for sequence, event in self._outbox:
            sequence.tell(event)
        for sequence, _ in self._outbox:
            sequence.flush()
        self._outbox.clear()

    def _fail_slots(self, error: StackError) -> None:
        victims = self._in_slots()
        self._running.clear()
        self._prefilling = None
        for sequence in victims:
            self._fail(sequence, error)

    def _fail_all(self, error: StackError) -> None:
        with self._admission:  # nobody is between its check and its put
            pass
        self._fail_slots(error)
        while not self._inbox.empty():
            sequence = self._inbox.get()
            if sequence is not None:
                self._waiting.push(sequence)
        for sequence in list(self._waiting):
            self._waiting.remove(sequence)
            self._fail(sequence, error)
        self._tell()

    def _release_slots(self) -> None:
        for slot in range(self._used_slots):
            self._executor.release(slot)
        self._used_slots = 0


def _unwanted(sequence: Sequence, now: float) -> bool:
    return sequence.cancelled or (sequence.deadline is not None and now > sequence.deadline)


def _logprobs(sequence: Sequence, logits: Logits, token: int) -> dict[str, float]:
    """Log probabilities by token text. Of tokens with the same text the chosen one counts, else the likeliest."""
    by_text: dict[str, float] = {}
    for other, value in log_probabilities(logits, token, sequence.logprobs):
        by_text.setdefault(sequence.token_text(other), value)
    return by_text
