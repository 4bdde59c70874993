"""The settings file: YAML with `${env.NAME}` and `${env.NAME:=default}`, and errors that say where and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, InitSettingsSource

from backends.errors import Misconfigured

REFERENCE = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)(?::=([^}]*))?\}")
# Kubernetes puts such variables beside every pod when a service is called `onnxstack`.
SERVICE_LINK = re.compile(r"^(SERVICE_(HOST|PORT)|PORT)(_.*)?$")


class InvalidSettings(Misconfigured):
    """The settings cannot be used. `problems`: one line each, with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class SettingsFile:
    """A file as read: values with references replaced, and the line of every key."""

    path: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> SettingsFile:
        return cls()

    @classmethod
    def read(cls, path: Path, environ: Mapping[str, str]) -> SettingsFile:
        """Raises InvalidSettings for a file that is missing, is not YAML, or refers to an unset variable."""
        try:
            node = yaml.compose(path.expanduser().read_text("utf-8"), Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise InvalidSettings([f"{path}: cannot be read: {reason}"]) from None
        except yaml.YAMLError as error:
            raise InvalidSettings([f"{path}: is not YAML: {' '.join(str(error).split())}"]) from None
        if node is None:
            return cls(path=str(path))
        if not isinstance(node, yaml.MappingNode):
            raise InvalidSettings([f"{path}: must be a mapping of settings"])
        lines: dict[tuple[str | int, ...], int] = {}
        problems: list[str] = []
        values = _plain(node, (), lines, problems, str(path), environ)
        if problems:
            raise InvalidSettings(problems)
        return cls(str(path), values, lines)

    def place(self, location: tuple[str | int, ...]) -> str | None:
        """`file:line` of a key, or of the nearest key above it; None when the file does not name it."""
        if location in self.lines:
            return f"{self.path}:{self.lines[location]}"
        return self.place(location[:-1]) if len(location) > 1 else None


def _plain(
    node: yaml.Node,
    location: tuple[str | int, ...],
    lines: dict[tuple[str | int, ...], int],
    problems: list[str],
    path: str,
    environ: Mapping[str, str],
) -> Any:
    """The node as plain values; a member that is null is left out, so that its default holds."""
    if isinstance(node, yaml.MappingNode):
        members: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*location, key)
            if key in members:
                problems.append(f"{path}:{key_node.start_mark.line + 1}: {_dotted(here)}: is given twice")
            lines[here] = key_node.start_mark.line + 1
            value = _plain(value_node, here, lines, problems, path, environ)
            if value is not None:
                members[key] = value
        return members
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[(*location, index)] = item.start_mark.line + 1
            items.append(_plain(item, (*location, index), lines, problems, path, environ))
        return items
    value = yaml.SafeLoader("").construct_object(node)
    return (
        _resolve(value, location, problems, f"{path}:{node.start_mark.line + 1}", environ)
        if isinstance(value, str)
        else value
    )


def _resolve(
    text: str, location: tuple[str | int, ...], problems: list[str], place: str, environ: Mapping[str, str]
) -> str:
    def replace(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        value = environ.get(name) or default  # like a shell, `:=` also replaces an empty variable
        if value is None:
            problems.append(
                f"{place}: {_dotted(location)}: the environment variable {name} is not set; set it or write"
                f" ${{env.{name}:=default}}"
            )
            return ""
        return value

    return REFERENCE.sub(replace, text)


class InitialValues(InitSettingsSource):
    """The settings source below the environment: values set for the time of one construction."""

    _current: ContextVar[dict[str, Any] | None] = ContextVar("settings file", default=None)

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls, init_kwargs=self._current.get() or {})

    @classmethod
    @contextmanager
    def of(cls, values: dict[str, Any]) -> Iterator[None]:
        token = cls._current.set(values)
        try:
            yield
        finally:
            cls._current.reset(token)


def explain(
    error: ValidationError,
    model: type[BaseModel],
    file: SettingsFile,
    environ: Mapping[str, str],
    prefix: str,
    delimiter: str,
) -> list[str]:
    """One line per problem. Values are never shown: they may be secrets."""
    problems = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        location = tuple(item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = _unknown(str(location[-1]), _names(model, location[:-1]))
        elif item["type"] == "missing":
            message = "is required"
        where = _dotted(location)
        variable = _variable(location, environ, prefix, delimiter)
        place = variable or file.place(location)
        problems.append(": ".join(part for part in (place, where, message) if part))
    return problems


def unknown_variables(
    environ: Mapping[str, str], model: type[BaseModel], prefix: str, delimiter: str, allowed: set[str]
) -> list[str]:
    """A line for every variable with our prefix whose first part is no setting: pydantic-settings would ignore it."""
    problems = []
    for name in environ:
        if not name.upper().startswith(prefix) or name.upper() in allowed:
            continue
        first = name[len(prefix) :].split(delimiter)[0].lower()
        if first in model.model_fields or SERVICE_LINK.match(name[len(prefix) :].upper()):
            continue
        known = [prefix + each.upper() for each in model.model_fields]
        problems.append(f"{name}: {_unknown(prefix + first.upper(), known)}")
    return problems


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"unknown setting; did you mean {near[0]}?" if near else f"unknown setting; there are {', '.join(known)}"


def _names(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Names of the settings at a location."""
    for part in location:
        if isinstance(part, str):
            inner = section_of(model.model_fields[part]) if part in model.model_fields else None
            if inner is None:
                return []
            model = inner
    return list(model.model_fields)


def section_of(info: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds, alone or as the items of a sequence; None for a plain value."""

    def search(annotation: Any) -> type[BaseModel] | None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        if get_origin(annotation) in (tuple, list, Union, UnionType):
            for argument in get_args(annotation):
                if (found := search(argument)) is not None:
                    return found
        return None

    return search(info.annotation)


def _variable(location: tuple[str | int, ...], environ: Mapping[str, str], prefix: str, delimiter: str) -> str | None:
    """The environment variable that set a location."""
    parts = [str(part).upper() for part in location]
    given = {name.upper(): name for name in environ}
    for length in range(len(parts), 0, -1):
        if (name := prefix + delimiter.join(parts[:length])) in given:
            return given[name]
    return None


def _dotted(location: tuple[str | int, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
