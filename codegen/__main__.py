"""`python -m codegen`: see docs/regenerate.md."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from codegen import build, diff, documents, handlers, report
from codegen.errors import CodegenError, UnacceptedChangeError

ROOT = Path(__file__).resolve().parent.parent

OK, FOUND, FAILED, UNACCEPTED = 0, 1, 2, 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns 0 when all is well, 1 when a check found something (drift, misfits, breaking changes), 2 when the contract
    needs a decision before anything can be generated, 3 when a changed contract waits for `--accept`.
    """
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except UnacceptedChangeError as error:
        print(error, file=sys.stderr)
        return UNACCEPTED
    except CodegenError as error:
        print(error, file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m codegen", description="From openapi.yaml to generated/.")
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to work in (default: this one)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="write nothing; exit 1 with a diff when outdated")
    mode.add_argument("--accept", action="store_true", help="record a changed contract in the lock, then generate")
    commands = parser.add_subparsers(dest="command")
    reporting = commands.add_parser("report", help="handlers that are missing, superfluous or no longer fit")
    reporting.add_argument("--json", action="store_true")
    commands.add_parser("stubs", help="append a stub for every operation without a handler")
    differ = commands.add_parser("diff", help="changes from one contract to another; exit 1 when one is breaking")
    differ.add_argument("old", type=Path)
    differ.add_argument("new", type=Path)
    differ.add_argument("--json", action="store_true")
    return parser


def _run(options: argparse.Namespace) -> int:
    root: Path = options.root.resolve()
    if options.command == "diff":
        return _diff(options)
    if options.command == "report":
        return _report(root, as_json=options.json)
    if options.command == "stubs":
        written = handlers.write_stubs(build.load(root).operations, root / "handlers")
        print("\n".join(f"stub: handlers.{name}" for name in written) or "every operation has a handler")
        return OK
    generation = build.generate(root)
    if options.check:
        build.check_lock(root, generation)
        lines = list(build.drift(root, generation))
        if lines:
            print("\n".join(lines))
            print(f"\n{build.FOLDER}/ is not what the contract gives; run: python -m codegen", file=sys.stderr)
        return FOUND if lines else OK
    changed = build.write(root, generation, accept=options.accept)
    print("\n".join(f"wrote {build.FOLDER}/{name}" for name in changed) or f"{build.FOLDER}/ is up to date")
    return OK


def _report(root: Path, *, as_json: bool) -> int:
    misfits = report.compare(build.load(root).operations, root / "handlers")
    if as_json:
        print(json.dumps([misfit.as_json() for misfit in misfits], indent=1))
    else:
        print("\n".join(map(str, misfits)) or "every handler fits its operation")
    return FOUND if misfits else OK


def _diff(options: argparse.Namespace) -> int:
    changes = diff.compare(documents.read(options.old), documents.read(options.new))
    breaking = sum(change.breaking for change in changes)
    if options.json:
        print(json.dumps([change.as_json() for change in changes], indent=1))
    else:
        print("\n".join(diff.render(changes)) or "no changes")
        if changes:
            print(f"{breaking} breaking, {len(changes) - breaking} other changes")
    return FOUND if breaking else OK


if __name__ == "__main__":
    sys.exit(main())
