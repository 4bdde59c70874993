"""Which Python runs the code, and which files of this machine that takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

_ASK = """
import json, os, site, sys, sysconfig
config = sysconfig.get_config_vars()
print(json.dumps({
    "executable": os.path.realpath(sys._base_executable), "version": sys.version_info[:2],
    "prefix": sys.base_prefix, "stdlib": sysconfig.get_path("stdlib", vars={"base": sys.base_prefix,
    "installed_base": sys.base_prefix}), "library": [config.get("LIBDIR") or "", config.get("INSTSONAME") or ""],
    "site": site.getsitepackages(),
}))
"""
_ASK_S = 30.0
_SYSTEM = ("/usr", "/usr/local")
"""Prefixes under which other things lie than an interpreter's."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python. prefix: where it is installed; stdlib: its library; shared: its own shared library, if there is one.

    packages: directories of its own packages.
    """

    executable: Path
    version: tuple[int, int]
    prefix: Path
    stdlib: Path
    shared: Path | None
    packages: tuple[Path, ...]

    @property
    def program(self) -> str:
        """Where it lies in the sandbox."""
        return f"/python/bin/python{self.version[0]}.{self.version[1]}"

    def binds(self) -> list[tuple[str, str]]:
        """What of this machine lies where in the sandbox."""
        found = [(str(self.executable), self.program)]
        if str(self.prefix) not in _SYSTEM:  # all of its libraries, since they may be its own copies
            return [*found, (str(self.prefix / "lib"), "/python/lib")]
        found.append((str(self.stdlib), f"/python/{self.stdlib.relative_to(self.prefix)}"))
        if self.shared is not None:
            found.append((str(self.shared), f"/python/lib/{self.shared.name}"))
        return found

    def hidden(self) -> list[str]:
        """Directories of the sandbox that hold packages of the machine, and are to be empty."""
        place = f"/python/{self.stdlib.relative_to(self.prefix)}/site-packages"
        return [place] if (self.stdlib / "site-packages").is_dir() else []


def find_interpreter(python: str) -> Interpreter:
    """The base interpreter of `python`, or of this process for "".

    Raises:
        OSError, ValueError: there is none, or it does not answer.
    """
    asked = subprocess.run(  # noqa: S603
        [python or sys.executable, "-I", "-c", _ASK], capture_output=True, timeout=_ASK_S, check=False, env={}
    )
    if asked.returncode:
        raise ValueError(asked.stderr.decode("utf-8", "replace").strip()[-300:])
    told = json.loads(asked.stdout)
    shared = Path(*told["library"])
    prefix = Path(told["prefix"])
    return Interpreter(
        executable=Path(told["executable"]),
        version=(told["version"][0], told["version"][1]),
        prefix=prefix,
        stdlib=Path(told["stdlib"]),
        shared=shared if shared.is_file() and ".so" in shared.name else None,
        packages=tuple(path for path in map(Path, told["site"]) if path.is_dir()) if python else (),
    )


def files_of(packages: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Files and folders that hold the distributions and what they need, and those of `packages` that are not there."""
    found: dict[str, Distribution] = {}
    missing: list[str] = []
    waiting = [(name, True) for name in packages]
    while waiting:
        name, wanted = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            found[key] = distribution(name)
        except PackageNotFoundError:
            if wanted:
                missing.append(name)
            continue
        waiting += [(need, False) for need in _needs(found[key])]
    paths = {path for found_one in found.values() for path in _top_level(found_one)}
    return sorted(paths), sorted(missing)


def _needs(found: Distribution) -> list[str]:
    needs = []
    for line in found.requires or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needs.append(requirement.name)
    return needs


def _top_level(found: Distribution) -> set[Path]:
    names = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
    paths = (Path(str(found.locate_file(name))) for name in names if not name.endswith((".dist-info", ".pth")))
    return {path for path in paths if path.exists()}
