"""The code scanner with the real bandit."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.context import CallContext
from backends.errors import BadRequest, PayloadTooLarge, Unavailable
from backends.ports import Safety
from backends.safety.code_scanner import MAX_CODE, CodeScannerSafety, CodeScannerSettings
from generated.models import CompletionMessage, Message, ToolCall, UserMessage
from tests.backends.safety.scripted import ScriptedModels, shield

SHELL = "import subprocess\nsubprocess.call('ls ' + name, shell=True)"


@pytest.fixture
def scanner() -> Safety:
    return CodeScannerSafety(CodeScannerSettings(), ScriptedModels())


def found(scanner: Safety, context: CallContext, *messages: Message | str, **params: object) -> str | None:
    sent = [UserMessage(content=message) if isinstance(message, str) else message for message in messages]
    violation = scanner.run(context, shield(), sent, params)
    return None if violation is None else str(violation.metadata["violation_type"])


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (f"Run this:\n```python\n{SHELL}\n```\nDone.", "B602"),
        (f"```\n{SHELL}\n```", "B602"),
        (f"~~~py\n{SHELL}", "B602"),
        (f"  ```python\n    eval(x)  # nosec\n  ```\n```python\n{SHELL}\n```", "B307,B602"),
        (SHELL, "B602"),
        ("\ufeffimport pickle\npickle.loads(data)", "B301"),
    ],
)
def test_insecure_python_is_a_violation_wherever_it_stands(
    scanner: Safety, context: CallContext, text: str, ids: str
) -> None:
    assert found(scanner, context, text) == ids


@pytest.mark.parametrize(
    "text",
    [
        "No code at all (really).",
        "```python\nprint('hello')\n```",
        "```bash\neval $(cat x)\n```",
        "```json\n{}\n```",
        "```python\ndef broken(:\n```",
        "f(a) is how a mathematician writes it, import duty is not",
        "",
        "```",
        "\0 eval(\0",
    ],
)
def test_harmless_code_and_text_pass(scanner: Safety, context: CallContext, text: str) -> None:
    assert found(scanner, context, text) is None


def test_all_messages_are_scanned_and_the_arguments_of_tool_calls(scanner: Safety, context: CallContext) -> None:
    call = ToolCall(call_id="1", tool_name="code_interpreter", arguments={"code": SHELL})
    answer = CompletionMessage(content="Let me see.", stop_reason="end_of_turn", tool_calls=[call])
    assert found(scanner, context, "hello", answer, "thanks") == "B602"
    assert found(scanner, context, "```python\neval(x)\n```", "thanks") == "B307"


def test_severity_is_a_parameter(scanner: Safety, context: CallContext) -> None:
    assert found(scanner, context, "```python\neval(x)\n```", severity="high") is None
    assert found(scanner, context, "```python\nassert x\n```", severity="low") == "B101"
    with pytest.raises(BadRequest, match="severity"):
        found(scanner, context, "x", severities="low")


def test_code_is_never_run(scanner: Safety, context: CallContext, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert found(scanner, context, f"```python\nopen({str(mark)!r}, 'w').write(eval('1'))\n```") is not None
    assert not mark.exists()


def test_code_that_bandit_cannot_get_through_does_not_pass(scanner: Safety, context: CallContext) -> None:
    with pytest.raises(BadRequest, match="nested too deeply"):
        found(scanner, context, f"```python\neval(x)\ny = {'-' * 3000}1\n```")


def test_size_and_time_are_bounded(scanner: Safety, context: CallContext) -> None:
    with pytest.raises(PayloadTooLarge, match=str(MAX_CODE)):
        found(scanner, context, f"```python\n{'eval(x)' + chr(10)}{'a = 1' + chr(10) * MAX_CODE}\n```")
    with pytest.raises(Unavailable, match="longer than"):
        found(scanner, context, f"```python\n{SHELL}\n```", timeout_s=0.001)
    assert found(scanner, context, "```\n" * 100_000) is None
    with pytest.raises(PayloadTooLarge, match="characters"):
        found(scanner, context, "a" * 1_000_001)
