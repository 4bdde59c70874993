"""One turn of an agent, from what a user says to what the agent answers.

    input shields -> documents -> retrieval -> inference and tool steps -> output shields -> the stored turn

`TurnLoop.events` reads in this order. Rules that are ours, since the contract leaves them open:

- A step is stored before its `step_complete` goes out, the last steps together with the turn: what a client has been
  told is there after a kill.
- Every call of a message runs, in order, as a step of its own. What goes wrong with one, a tool that the agent does
  not have included, is a result that the model reads. If some of the calls are the client's, the server's run first;
  then the turn ends with the client's, and goes on with their results in the client's next turn.
- There are at most `max_infer_iters` inferences. Calls of the last one do not run and are not in the output message,
  unless they are the client's. `tool_choice` holds for the first inference of a question; after that the model may
  answer. A model that makes the same calls again and gets the same results is asked once more, without tools.
- With output shields nothing that the model says goes out before it has been judged; what they object to never does.
- What a tool or retrieval brings is judged by the input shields: what they object to is withheld from the model.
"""

from __future__ import annotations

import base64
import itertools
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from backends.agents import events
from backends.agents.checks import Plan
from backends.agents.conversation import (
    RETRIEVAL_CALL,
    joined,
    last_question,
    messages_of,
)
from backends.agents.documents import SessionDocuments
from backends.agents.events import Event
from backends.agents.records import StoredSession, StoredTurn
from backends.agents.shields import judge, refusal, stops, withheld
from backends.agents.spans import TurnSpans, plain
from backends.agents.tools import CODE_GROUP
from backends.context import CallContext
from backends.errors import Cancelled, Conflict, ContextLengthExceeded, DeadlineExceeded, StackError, Unavailable
from backends.inference import ChatPrompt, Finish, GenerateRequest, TextDelta, ToolCallDelta
from backends.ports import AgentStore, Retrieval, ToolResult
from backends.resources import Shields, ToolGroups
from backends.telemetry import names
from generated import models as m

log = logging.getLogger(__name__)

Doing = Generator[Event, None, None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What all turns use."""

    store: AgentStore
    shields: Shields
    tool_groups: ToolGroups
    retrieval: Retrieval
    documents: SessionDocuments
    now: Callable[[], datetime]
    new_id: Callable[[], str]


@dataclass(slots=True)
class Inference:
    """One answer of the model. held: its events that have not gone out."""

    step: m.InferenceStep
    held: list[Event]

    @property
    def message(self) -> m.CompletionMessage:
        return self.step.model_response

    @property
    def calls(self) -> list[m.ToolCall]:
        return list(self.message.tool_calls or ())


class TurnLoop:
    """One turn that has been begun in the store. `events` can be read once."""

    def __init__(
        self,
        context: CallContext,
        parts: Parts,
        plan: Plan,
        session: StoredSession,
        turn: m.Turn,
        documents: Sequence[m.TurnDocument],
        spans: TurnSpans,
    ) -> None:
        self._context = context
        self._parts = parts
        self._plan = plan
        self._session = session
        self._turn = turn
        self._documents = documents
        self._spans = spans
        self._stored = StoredTurn(turn)
        self._messages: list[m.Message] = []
        self._history: Sequence[StoredTurn] = ()
        self._admitted = False
        self._finished = False

    def events(self) -> Iterator[Event]:
        """The events of the turn. However the reading ends, the turn ends in the store.

        Raises:
            StackError: the turn failed. Before the first inference was taken on, nothing of it is kept.
        """
        try:
            yield from self._run()
        except GeneratorExit:
            self._fail(Cancelled("the caller has gone"))
            raise
        except BaseException as error:
            self._fail(error)
            raise
        self._spans.end()

    def _run(self) -> Doing:
        yield events.turn_start(self._turn)
        self._history = self._parts.store.turns(self._context, self._turn.session_id)[:-1]

        refused = yield from self._judge_input(self._turn.input_messages)
        if refused:
            return

        context = self._take_documents()
        if context:
            refused = yield from self._judge_input([m.UserMessage(content=context)], quiet=True)
            if refused:
                return

        yield from self._retrieve()

        instructions = self._plan.config.instructions
        self._messages = messages_of(instructions, self._history, self._stored)
        yield from self._converse()

    # Input shields, documents, retrieval

    def _judge_input(self, messages: Sequence[m.Message], *, quiet: bool = False) -> Generator[Event, None, bool]:
        """Let the input shields judge what comes in; True if they ended the turn. quiet: a step only if they object."""
        if not self._plan.input_shields:
            return False
        step = self._judge(self._plan.input_shields, joined(messages), "input_shields")
        if step.violation is None and quiet:
            return False
        start, complete = events.shield_call(step, "user-input")
        yield start
        if step.violation is not None and stops(step.violation):
            yield from self._end([step], [complete], events.said(refusal(step.violation)))
            return True
        yield from self._keep(step)
        return False

    def _take_documents(self) -> str:
        """Put the documents where they belong; what they add to the question."""
        as_files, as_chunks = self._plan.tools.runs_code, self._plan.retrieval is not None
        if last_question(self._turn.input_messages) is None and not (as_files or as_chunks):
            return ""  # results of the client's tools: the documents stand beside the question
        context = self._parts.documents.take(
            self._context, self._session, self._history, self._documents, as_files=as_files, as_chunks=as_chunks
        )
        self._stored = replace(self._stored, document_context=context)
        return context

    def _retrieve(self) -> Doing:
        """Look for what bears on the last question, which stays beside it as long as tools are called for it."""
        plan = self._plan.retrieval
        place = last_question(self._turn.input_messages)
        if place is None:
            return  # results of the client's tools: what was found for the question is beside it already
        own = None if plan is None else self._parts.documents.vector_db(self._context, self._session)
        ids = [*(plan.vector_db_ids if plan else ()), *([own] if own else ())]
        if plan is None or not ids:
            return
        question = self._turn.input_messages[place].content
        call = m.ToolCall(call_id=RETRIEVAL_CALL, tool_name=names.QUERY_FROM_MEMORY, arguments={})
        step_id, started_at = self._parts.new_id(), self._parts.now()
        yield events.step_start("tool_execution", step_id)
        yield events.call_progress("tool_execution", step_id, ToolCallDelta("succeeded", call=call))
        with self._spans.tool(call, names.QUERY_FROM_MEMORY, plain(question)) as span:
            found = self._parts.retrieval.query(self._context, question, ids, plan.config).content
            self._spans.answered(span, found or "")
        shield_step = self._judge_result(call, found or "")
        stopped = shield_step is not None and stops(shield_step.violation)
        self._stored = replace(self._stored, retrieved=None if stopped else found)
        content = withheld(shield_step) if stopped and shield_step is not None else found or ""
        yield from self._keep(self._execution(step_id, started_at, call, content))
        yield from self._keep_judgement(shield_step)

    # Inference and tool steps

    def _converse(self) -> Doing:
        config, tools = self._plan.config, self._plan.tools
        offered = tools.definitions
        asks = last_question(self._turn.input_messages) is not None
        choice: m.ToolChoice = config.tool_choice if asks and offered else "auto"
        before: object = None
        for iteration in itertools.count(1):
            self._context.check()
            try:
                inference = yield from self._infer(offered, choice)
            except ContextLengthExceeded:
                if iteration == 1:
                    raise
                return (yield from self._end([], [], events.said("", stop_reason="out_of_tokens")))
            choice = "auto"
            own = [call for call in inference.calls if call.tool_name in tools.client]
            others = [call for call in inference.calls if call.tool_name not in tools.client]
            cut_off = inference.message.stop_reason == "out_of_tokens"
            goes_on = bool(others) or (not own and inference.message.stop_reason == "end_of_message")
            if cut_off or not goes_on or (iteration == config.max_infer_iters and not own):
                return (yield from self._answer(inference, [] if cut_off else own))
            refused = yield from self._keep_inference(inference)
            if refused:
                return
            self._messages.append(inference.message)
            results: list[object] = []
            for call in others:
                content = yield from self._execute(call)
                results.append((call.tool_name, call.arguments, content))
            if own:
                output = inference.message.model_copy(update={"tool_calls": own})
                return (yield from self._end([], [], output))
            if results and results == before:
                offered = ()
            before = results

    def _infer(self, offered: tuple[m.ToolDefinition, ...], choice: m.ToolChoice) -> Generator[Event, None, Inference]:
        """Let the model go on. Its events go out as they come, or are held for the output shields."""
        config, step_id, started_at = self._plan.config, self._parts.new_id(), self._parts.now()
        span = self._spans.inference(self._messages)
        request = GenerateRequest(
            self._plan.model,
            ChatPrompt(
                tuple(self._messages), offered, choice, config.tool_prompt_format, dict(self._plan.tools.schemas)
            ),
            self._plan.sampling,
            response_format=config.response_format,
        )
        with self._spans.during(span):
            generation = self._plan.generator.generate(self._context, request)
        self._admitted = True
        held: list[Event] = []
        texts: list[str] = []
        calls: list[m.ToolCall] = []
        finish: Finish | None = None
        try:
            yield events.step_start("inference", step_id)
            for delta in generation:
                if isinstance(delta, Finish):
                    finish = delta
                    break
                if isinstance(delta, TextDelta) or delta.status == "failed":
                    texts.append(delta.text)
                elif delta.call is not None:
                    calls.append(delta.call)
                event = events.generated(step_id, delta)
                if event is not None and self._plan.output_shields:
                    held.append(event)
                elif event is not None:
                    yield event
            if finish is None:
                raise Unavailable("the engine ended the generation before its last event")
        except BaseException as error:
            self._spans.broke(span, error)
            raise
        finally:
            close = getattr(generation, "close", None)
            if close is not None:
                close()
        message = m.CompletionMessage(content="".join(texts), stop_reason=finish.stop_reason, tool_calls=calls)
        self._spans.inferred(span, message)
        step = m.InferenceStep(
            turn_id=self._turn.turn_id,
            step_id=step_id,
            started_at=started_at,
            completed_at=self._parts.now(),
            model_response=message,
        )
        return Inference(step, held)

    def _execute(self, call: m.ToolCall) -> Generator[Event, None, m.InterleavedContent]:
        """Run one call, and tell the model what came of it."""
        step_id, started_at = self._parts.new_id(), self._parts.now()
        yield events.step_start("tool_execution", step_id)
        yield events.call_progress("tool_execution", step_id, ToolCallDelta("in_progress", call=call))
        with self._spans.tool(call) as span:
            content, shield_step = self._content_of(call)
            self._spans.answered(span, content)
        self._messages.append(m.ToolResponseMessage(call_id=call.call_id, tool_name=call.tool_name, content=content))
        yield from self._keep(self._execution(step_id, started_at, call, content))
        yield from self._keep_judgement(shield_step)
        return content

    def _content_of(self, call: m.ToolCall) -> tuple[m.InterleavedContent, m.ShieldCallStep | None]:
        """What the model is told of a call, and what the shields objected to."""
        try:
            result = self._invoke(call)
            judged = self._judge_result(call, result.content)
        except (Cancelled, DeadlineExceeded):
            raise
        except StackError as error:
            return f"Error: {error.message}", None
        except Exception:
            log.exception("tool %s failed in an unexpected way", call.tool_name)
            return f"Error: the tool `{call.tool_name}` failed in an unexpected way", None
        if judged is not None and stops(judged.violation):
            return withheld(judged), judged
        if result.files:
            self._parts.documents.keep(self._context, self._session, result.files)
            for file in result.files:
                data = base64.b64encode(file.data).decode()
                content = m.URL(uri=f"data:{file.mime_type};base64,{data}")
                self._turn.output_attachments.append(m.Attachment(content=content, mime_type=file.mime_type))
        return result.content, judged

    def _invoke(self, call: m.ToolCall) -> ToolResult:
        tool = self._plan.tools.server.get(call.tool_name)
        if tool is None:
            return ToolResult(f"Error: there is no tool `{call.tool_name}`; there are: {self._plan.tools.names()}")
        code = tool.toolgroup_id == CODE_GROUP
        files = self._parts.documents.files(self._context, self._session) if code else ()
        arguments = {**call.arguments, **tool.arguments}
        return self._parts.tool_groups.invoke(self._context, tool.name, arguments, files, where="/tool_name")

    # Output shields, and the end

    def _answer(self, inference: Inference, calls: list[m.ToolCall]) -> Doing:
        """End the turn with what the model said last and the calls that are left to the client."""
        if not self._plan.output_shields:
            output = inference.message.model_copy(update={"tool_calls": calls})
            return (yield from self._end([inference.step], [events.step_complete(inference.step)], output))
        step = self._judge_output(inference)
        if stops(step.violation):
            return (yield from self._withhold(inference, step))
        output = inference.message.model_copy(update={"tool_calls": calls})
        last = [*inference.held, events.step_complete(inference.step), *events.shield_call(step, "assistant-output")]
        yield from self._end([inference.step, step], last, output)

    def _keep_inference(self, inference: Inference) -> Generator[Event, None, bool]:
        """Keep an answer after which the turn goes on; True if the output shields ended it."""
        said = bool(inference.message.content or inference.calls)
        step = self._judge_output(inference) if self._plan.output_shields and said else None
        if step is not None and stops(step.violation):
            yield from self._withhold(inference, step)
            return True
        yield from inference.held
        yield from self._keep(inference.step)
        if step is not None and step.violation is not None:
            yield events.shield_call(step, "assistant-output")[0]
            yield from self._keep(step)
        return False

    def _withhold(self, inference: Inference, step: m.ShieldCallStep) -> Doing:
        """End the turn without what the model said."""
        assert step.violation is not None  # noqa: S101
        emptied = inference.message.model_copy(update={"content": "", "tool_calls": []})
        told = inference.step.model_copy(update={"model_response": emptied})
        last = [events.step_complete(told), *events.shield_call(step, "assistant-output")]
        yield from self._end([told, step], last, events.said(refusal(step.violation)))

    def _end(self, steps: Sequence[m.Step], last: Sequence[Event], output: m.CompletionMessage) -> Doing:
        """Store the turn with its last steps, then let the last events go."""
        self._turn.steps += steps
        self._turn.output_message = output
        self._turn.completed_at = self._parts.now()
        self._parts.store.finish_turn(self._context, self._stored, steps)
        self._finished = True
        yield from last
        yield events.turn_complete(self._turn)

    def _fail(self, error: BaseException) -> None:
        """End a turn that did not come to its end; the store may be what failed."""
        if self._finished:  # the client left without its last events
            self._spans.end()
            return
        self._spans.end(error)
        with suppress(Conflict):  # the session is somebody else's by now, or gone
            try:
                if not self._admitted:
                    self._parts.store.abandon_turn(self._context, self._turn)
                    return
                self._turn.error = events.failure(error)
                self._turn.completed_at = self._parts.now()
                self._parts.store.finish_turn(self._context, self._stored)
            except StackError as failure:
                if isinstance(failure, Conflict):
                    raise
                log.warning("turn %s is left to its lease: %s", self._turn.turn_id, failure)

    # Steps

    def _keep(self, step: m.Step) -> Doing:
        """Store a step, then say that it is complete."""
        self._turn.steps.append(step)
        self._parts.store.add_step(self._context, self._turn, step)
        yield events.step_complete(step)

    def _keep_judgement(self, step: m.ShieldCallStep | None) -> Doing:
        if step is not None and step.violation is not None:
            yield events.shield_call(step, "tool-output")[0]
            yield from self._keep(step)

    def _execution(
        self, step_id: str, started_at: datetime, call: m.ToolCall, content: m.InterleavedContent
    ) -> m.ToolExecutionStep:
        return m.ToolExecutionStep(
            turn_id=self._turn.turn_id,
            step_id=step_id,
            started_at=started_at,
            completed_at=self._parts.now(),
            tool_calls=[call],
            tool_responses=[m.ToolResponse(call_id=call.call_id, tool_name=call.tool_name, content=content)],
        )

    def _judge_result(self, call: m.ToolCall, content: m.InterleavedContent) -> m.ShieldCallStep | None:
        if not self._plan.input_shields:
            return None
        message = m.ToolResponseMessage(call_id=call.call_id, tool_name=call.tool_name, content=content)
        return self._judge(self._plan.input_shields, [message], "input_shields")

    def _judge_output(self, inference: Inference) -> m.ShieldCallStep:
        place = last_question(self._messages)
        question = [] if place is None else [self._messages[place]]
        return self._judge(self._plan.output_shields, [*question, inference.message], "output_shields")

    def _judge(self, shield_ids: Sequence[str], messages: Sequence[m.Message], member: str) -> m.ShieldCallStep:
        step_id, started_at = self._parts.new_id(), self._parts.now()
        with self._spans.shields(messages) as span:
            violation = judge(self._context, self._parts.shields, shield_ids, messages, f"/agent_config/{member}")
            self._spans.judged(span, violation)
        if violation is not None and not stops(violation):
            log.info("shields of turn %s: %s", self._turn.turn_id, violation.violation_level)
        return m.ShieldCallStep(
            turn_id=self._turn.turn_id,
            step_id=step_id,
            started_at=started_at,
            completed_at=self._parts.now(),
            violation=violation,
        )
