"""`inline::code-interpreter` as a provider of tools."""

from __future__ import annotations

import mimetypes
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from backends.context import CallContext
from backends.documents.charset import decode
from backends.documents.media_type import UNKNOWN, media_type_of
from backends.errors import BadRequest, PayloadTooLarge
from backends.ports import JsonObject, Resource, ToolFile, ToolResult
from backends.sandbox.bubblewrap import MAX_INODES, Bubblewrap, Outcome
from backends.sandbox.interpreter import files_of
from backends.sandbox.settings import CodeInterpreterSettings
from backends.sandbox.slots import Slots
from generated.models import URL, ToolDef, ToolParameter

GROUP = "builtin::code_interpreter"
TOOL = "code_interpreter"
MAX_CODE = 200_000
"""Characters of code."""
FAILED = 1
"""The error code of every result with an error."""
_FENCED = re.compile(r"\s*```(?:python|py)?[ \t]*\n(?P<code>.*?)\n?```\s*", re.DOTALL | re.IGNORECASE)
_UNSAFE_IN_NAMES = re.compile(r"[\x00-\x1f\x7f/\\]")


class CodeInterpreter:
    """Runs Python code, each call in a sandbox of its own."""

    def __init__(self, settings: CodeInterpreterSettings, directory: Path) -> None:
        """directory: for locks, shared by all workers of a server."""
        self._settings = settings
        self._sandbox = Bubblewrap(settings)
        self._slots = Slots(directory, settings.at_once)

    def list_tools(self, context: CallContext, toolgroup_id: str, endpoint: URL | None) -> list[ToolDef]:
        """The one tool, if this machine can run it. Raises BadRequest, Unsupported."""
        if endpoint is not None or toolgroup_id != GROUP:
            raise BadRequest(f"this provider has the tool group `{GROUP}` and no endpoints", where="/toolgroup_id")
        self._sandbox.check()
        code = ToolParameter(name="code", parameter_type="string", description="Python code", required=True)
        return [ToolDef(name=TOOL, description=self._description(), parameters=[code], metadata={})]

    def invoke(
        self, context: CallContext, tool: Resource, group: Resource, arguments: JsonObject, files: Sequence[ToolFile]
    ) -> ToolResult:
        """Run `code` in a directory with the files; those that it makes or changes there come back.

        Raises:
            BadRequest, PayloadTooLarge: the arguments. Overloaded: no place for it in time. Unsupported: no sandbox.
            Unavailable: the sandbox failed. Cancelled, DeadlineExceeded.
        """
        code = _code_of(arguments)
        if sum(len(file.data) for file in files) > self._settings.disk_mb << 20:
            raise PayloadTooLarge(f"the files for the code have more than {self._settings.disk_mb} MB together")
        context.check()
        with self._slots.hold(context, self._settings.wait_s):
            outcome = self._sandbox.run(context, code, [_named(file, number) for number, file in enumerate(files, 1)])
        return self._result(outcome)

    def _description(self) -> str:
        if self._settings.python:
            imports = "what its environment has"
        else:
            missing = files_of(self._settings.packages)[1]
            there = [name for name in self._settings.packages if name not in missing]
            imports = ", ".join(["the standard library", *there])
        return (
            "Executes Python code and returns what it prints. Every call starts afresh. The code can import "
            f"{imports}; it has no network and cannot start processes. Files that it writes into its working "
            "directory, and figures shown with plt.show(), are returned."
        )

    def _result(self, outcome: Outcome) -> ToolResult:
        error = self._error_of(outcome)
        status = "completed" if error is None else "timeout" if outcome.cause == "timeout" else "error"
        pieces = [status]
        for name, text in (("stdout", outcome.stdout), ("stderr", self._stderr_of(outcome, error))):
            if text:
                pieces.append(f"[{name}]\n{text.removesuffix(chr(10))}\n[/{name}]")
        if outcome.left_out:
            limits = f"{self._settings.max_files} files of {self._settings.max_files_mb} MB together"
            pieces.append(f"[{outcome.left_out} more files were left out: at most {limits} are returned]")
        files = tuple(_file(name, data) for name, data in outcome.files)
        return ToolResult("\n".join(pieces), error, None if error is None else FAILED, files)

    def _error_of(self, outcome: Outcome) -> str | None:
        if outcome.cause == "timeout":
            return f"the code took longer than {self._settings.timeout_s:g} s and was stopped"
        if outcome.cause == "files":
            return f"the code made more than {MAX_INODES} files and was stopped"
        if outcome.code < 0:
            return f"the code was stopped by {_signal(-outcome.code)}"
        if outcome.code:
            last = outcome.stderr.strip().rpartition("\n")[2]
            return last[:500] or f"the code ended with exit code {outcome.code}"
        return None

    def _stderr_of(self, outcome: Outcome, error: str | None) -> str:
        """What the code wrote there, and why it ended where it could not say so itself."""
        if error is None or error in outcome.stderr:
            return outcome.stderr
        return f"{outcome.stderr.rstrip()}\n{error}".lstrip()


def _code_of(arguments: JsonObject) -> str:
    unknown = sorted(set(arguments) - {"code"})
    if unknown:
        raise BadRequest(f"{TOOL} takes the argument `code` alone, found {unknown[:5]}", where="/kwargs")
    code = arguments.get("code")
    if not isinstance(code, str):
        raise BadRequest(f"{TOOL} needs the argument `code`, a string of Python", where="/kwargs/code")
    if len(code) > MAX_CODE:
        raise BadRequest(f"the code has {len(code)} characters, at most {MAX_CODE} are run", where="/kwargs/code")
    fenced = _FENCED.fullmatch(code)
    return (fenced["code"] if fenced else code).encode("utf-8", "replace").decode()


def _named(file: ToolFile, number: int) -> ToolFile:
    """The file under a name that lies in the working directory."""
    name = _clean(file.name.replace("\\", "/").rpartition("/")[2])
    return ToolFile(f"file_{number}" if name in ("", ".", "..") else name, file.data, file.mime_type)


def _file(name: str, data: bytes) -> ToolFile:
    mime_type = media_type_of(data, mimetypes.guess_type(name)[0] or "", name)
    if mime_type == UNKNOWN and decode(data) is not None:
        mime_type = "text/plain"
    return ToolFile(_clean(name), data, mime_type)


def _clean(name: str) -> str:
    safe = _UNSAFE_IN_NAMES.sub("_", name.encode("utf-8", "replace").decode())
    return safe.encode()[-200:].decode("utf-8", "ignore")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
