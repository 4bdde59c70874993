"""`inline::code-scanner`: insecure Python in messages, found by bandit (https://bandit.readthedocs.io).

bandit reads the code and never runs it. It works in a process of its own, which is ended when it takes too long.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from pydantic import Field

from backends.config import Section
from backends.context import CallContext
from backends.errors import BadRequest, PayloadTooLarge, Unavailable
from backends.ports import GuardModels, JsonObject, Resource
from backends.safety.code_blocks import python_blocks
from backends.safety.conversation import strings_of, texts_of
from backends.safety.options import options_of
from generated.models import CompletionMessage, Message, SafetyViolation

REFUSAL = "Sorry, I found security concerns in the code."
MAX_CODE = 200_000
"""Characters of code in one run."""
_NO_PYTHON = "syntax error"
"""How bandit's reason begins for a file that Python would not run either."""
_SEVERITIES = ("LOW", "MEDIUM", "HIGH")


class CodeScannerSettings(Section):
    """Options of `inline::code-scanner`, of a shield (`params` of its registration) and of a run."""

    severity: Literal["low", "medium", "high"] = Field("medium", description="Least severity that is a violation.")
    timeout_s: float = Field(20.0, gt=0, le=120, description="Seconds that a scan may take; then it is an error.")


class _Finding(msgspec.Struct, frozen=True):
    test_id: str
    issue_severity: str


class _Error(msgspec.Struct, frozen=True):
    reason: str


class _Report(msgspec.Struct, frozen=True):
    results: list[_Finding]
    errors: list[_Error]


class CodeScannerSafety:
    """Scans the Python in all messages of a conversation."""

    def __init__(self, settings: CodeScannerSettings, _models: GuardModels) -> None:
        self._settings = settings

    def check(self, context: CallContext, shield: Resource) -> None:
        """Return if the options are right. Raises BadRequest."""
        options_of(self._settings, shield, {})

    def run(
        self, context: CallContext, shield: Resource, messages: Sequence[Message], params: JsonObject
    ) -> SafetyViolation | None:
        """The violation of all findings, None where there is none, or no code."""
        options = options_of(self._settings, shield, params)
        blocks = list(dict.fromkeys(block for text in _texts(messages) for block in python_blocks(text)))
        if not blocks:
            return None
        if sum(map(len, blocks)) > MAX_CODE:
            raise PayloadTooLarge(f"the messages hold more than {MAX_CODE} characters of code, which is not scanned")
        context.check()
        least = _SEVERITIES.index(options.severity.upper())
        found = [f for f in scan(blocks, options.timeout_s) if _SEVERITIES.index(f.issue_severity) >= least]
        if not found:
            return None
        metadata = {"violation_type": ",".join(sorted({finding.test_id for finding in found}))}
        return SafetyViolation(violation_level="error", user_message=REFUSAL, metadata=metadata)


def scan(blocks: Sequence[str], timeout_s: float) -> list[_Finding]:
    """What bandit objects to in pieces of Python. What is no Python has no findings.

    Raises:
        BadRequest: code that Python would run is too deeply nested for bandit. Unavailable: it takes longer than
        `timeout_s` seconds, or fails.
    """
    with tempfile.TemporaryDirectory(prefix="onnxstack-scan-") as name:
        directory = Path(name)
        for i, block in enumerate(blocks):
            (directory / f"{i}.py").write_text(block, "utf-8")
        # Isolated, so that nothing of the environment or of the directory is imported. A comment in the code must not
        # be able to switch findings off.
        command = [sys.executable, "-I", "-m", "bandit", "--quiet", "--format", "json", "--exit-zero", "--ignore-nosec"]
        try:
            done = subprocess.run(  # noqa: S603
                [*command, "--recursive", name],
                cwd=name,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"scanning the code took longer than {timeout_s:g} s", retry_after_s=None) from None
    try:
        report = msgspec.json.decode(done.stdout, type=_Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        raise Unavailable(
            "the code scanner failed", retry_after_s=None, internal=f"exit {done.returncode}: {last}"
        ) from error
    if any(not error.reason.startswith(_NO_PYTHON) for error in report.errors):
        raise BadRequest("the messages hold code that cannot be scanned: it is nested too deeply", where="/messages")
    return report.results


def _texts(messages: Sequence[Message]) -> list[str]:
    """Contents, and each string in the arguments of tool calls by itself."""
    contents = [
        message.model_copy(update={"tool_calls": None}) if isinstance(message, CompletionMessage) else message
        for message in messages
    ]
    calls = [call for m in messages if isinstance(m, CompletionMessage) for call in m.tool_calls or ()]
    return [*texts_of(contents), *(text for call in calls for text in strings_of(call.arguments))]
