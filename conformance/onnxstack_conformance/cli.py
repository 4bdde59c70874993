"""The command `onnxstack-conform`: the rules run by pytest, with short names for the plugin's options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from onnxstack_conformance import __version__

INI = Path(__file__).with_name("rules.ini")
PLUGIN = "onnxstack_conformance.plugin"
# Options that are handed on under the plugin's names; what each means is said there.
TAKES_VALUE = {
    "token": "KEY",
    "header": "NAME:VALUE",
    "api": "API",
    "operation": "ID",
    "layer": "LAYER",
    "llm": "ID",
    "embedding-model": "ID",
    "shield": "ID",
    "attack": "TEXT",
    "tool": "NAME=JSON",
    "mcp-endpoint": "URL",
    "restart-command": "COMMAND",
    "client": "VERSION=PYTHON",
    "seed": "N",
    "budget": "SECONDS",
    "load-seconds": "SECONDS",
    "load-clients": "N",
    "timeout": "SECONDS",
    "job-timeout": "SECONDS",
    "json": "FILE",
    "html": "FILE",
    "baseline": "FILE",
}
SWITCHES = ("read-only", "accept-nulls", "no-training", "allow-missing")
HELP = {
    "token": "a bearer key; several are several callers, and each has to work",
    "header": "a header for every request, for servers with another kind of auth",
    "api": "judge only this API, as inference or vector-io; may be repeated",
    "operation": "judge only this operation; may be repeated",
    "layer": "run only this layer: properties, behaviour, clients or load; may be repeated",
    "llm": "the model that generates, instead of the first that the server lists",
    "embedding-model": "the model that embeds, instead of the first that the server lists",
    "shield": "the shield to ask, instead of the first that the server lists",
    "attack": "a text that the shield objects to",
    "tool": 'a call that a tool of the server can take, as \'code_interpreter={"code": "print(1)"}\'',
    "mcp-endpoint": "an MCP server that the server under test can reach",
    "restart-command": "restarts the server; with it the rules on durability run",
    "client": "an interpreter that has this version of llama-stack-client; without it one is made",
    "seed": "of the property tests; the same seed sends the same requests (1)",
    "budget": "that the property tests may take (120)",
    "load-seconds": "that the load smoke takes (10)",
    "load-clients": "that ask at once in the load smoke (8)",
    "timeout": "that any answer may take (120)",
    "job-timeout": "that a job of evaluation or training may take (600)",
    "json": "write the report as JSON; a later run takes it as --baseline",
    "html": "write the report as one HTML page",
    "baseline": "an earlier JSON report: findings that it has do not fail the run",
    "read-only": "send nothing that changes the server, for one in production",
    "accept-nulls": "take null in answers for an absent member, as the Python client does",
    "no-training": "start no job of fine-tuning",
    "allow-missing": "exit 0 although operations are missing or could not be tested",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(4, f"{self.format_usage()}{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = _Parser(
        prog="onnxstack-conform",
        description="Test an implementation of the Llama Stack v1 API at a URL.",
        epilog="Exit status: 0 every operation passed, 1 something is broken, 2 something is missing or untested, "
        "3 the kit itself failed, 4 the command line is wrong.",
    )
    found.add_argument("url", metavar="URL", help="the server, as http://localhost:8321")
    for name, value in TAKES_VALUE.items():
        found.add_argument(f"--{name}", metavar=value, action="append", help=HELP[name])
    for name in SWITCHES:
        found.add_argument(f"--{name}", action="store_true", help=HELP[name])
    found.add_argument("--rule", metavar="NAME", help="run only rules whose names have this, as the report names them")
    found.add_argument("--junit", metavar="FILE", help="write the rules' outcomes as JUnit XML")
    found.add_argument("-v", "--verbose", action="store_true", help="a line for each rule")
    found.add_argument("--version", action="version", version=__version__)
    return found


def arguments(command_line: Sequence[str]) -> list[str]:
    """What pytest is called with. Exits with status 4 when the command line is wrong."""
    line = parser()
    given = vars(line.parse_args(command_line))
    found = [
        "-c",
        str(INI),
        "--rootdir",
        str(INI.parent),
        "-p",
        PLUGIN,
        "-p",
        "no:cacheprovider",
        "-p",
        "no:unraisableexception",
        "--noconftest",
        "--tb=no",
        "-rN",
    ]
    found += ["-v"] if given["verbose"] else ["-q"]
    found += ["--pyargs", "onnxstack_conformance", f"--stack-url={given['url']}"]
    for name in TAKES_VALUE:
        found += [f"--stack-{name}={value}" for value in given[name.replace("-", "_")] or ()]
    found += [f"--stack-{name}" for name in SWITCHES if given[name.replace("-", "_")]]
    if given["rule"]:
        found += ["-k", given["rule"].partition("[")[0]]
    if given["junit"]:
        found.append(f"--junit-xml={given['junit']}")
    return found


def main(command_line: Sequence[str] | None = None) -> None:
    sys.exit(pytest.main(arguments(sys.argv[1:] if command_line is None else command_line)))
