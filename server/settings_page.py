"""Writes `docs/configuration.md` from the settings model: `python -m server.settings_page docs/configuration.md`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from server.settings import CONFIG_VARIABLE, DELIMITER, PREFIX, Settings
from server.settings_file import section_of

INTRODUCTION = f"""# Configuration

<!-- Generated from server/settings.py by `tox run -e docs`. Do not edit. -->

Every setting has a default; `onnxstack serve` needs none. A value comes from, later ones winning:

1. the default,
2. the YAML file named by `--config` or `{CONFIG_VARIABLE}`,
3. the environment: `{PREFIX}` and the path with `{DELIMITER}` between its parts; lists and sections as JSON,
4. an option of the command line.

In the file `${{env.NAME}}` stands for an environment variable, and `${{env.NAME:=default}}` for one that may be missing
or empty. A key that is no setting is refused with its place and the nearest name. `onnxstack config show` prints what
is in force, secrets masked; `onnxstack config check` reads everything as `serve` would.

```yaml
server:
  host: 0.0.0.0
  port: 8321
auth:
  keys:
    - name: alice
      sha256: ${{env.ALICE_KEY_SHA256}}
database_url: ${{env.DATABASE_URL:=}}
log:
  format: json
```
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. path: `server.port`, with `[]` behind a list of sections; required: it has no default."""

    path: str
    type: str
    default: str | None
    description: str

    @property
    def variable(self) -> str | None:
        """Its environment variable; None inside a list, which is given as a whole."""
        return None if "[]" in self.path else PREFIX + self.path.upper().replace(".", DELIMITER)


def settings(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Setting]:
    """Every setting in the order of the model; a list of sections comes before its members."""
    for name, info in model.model_fields.items():
        path = f"{prefix}{name}"
        section = section_of(info)
        if section is None:
            yield _setting(path, info)
        elif get_origin(info.annotation) is None:
            yield from settings(section, f"{path}.")
        else:
            yield _setting(path, info)
            yield from settings(section, f"{path}[].")


def page() -> str:
    """The whole page: plain settings first, then each section."""
    parts = [INTRODUCTION]
    current = None
    for setting in sorted(settings(), key=lambda each: "." in each.path or section_of(_field(each.path)) is not None):
        top = setting.path.split(".")[0].removesuffix("[]")
        section = top if section_of(_field(top)) else ""
        if section != current:
            current = section
            parts.append(f"## {_section_title(section)}\n" if section else "## Top level\n")
        facts = [f"type {setting.type}"]
        facts.append(f"default `{setting.default}`" if setting.default is not None else "required")
        if setting.variable:
            facts.append(f"environment `{setting.variable}`")
        parts.append(f"### `{setting.path}`\n\n{setting.description}\n\n{', '.join(facts)}\n")
    return "\n".join(parts)


def _field(path: str) -> FieldInfo:
    return Settings.model_fields[path.split(".")[0].removesuffix("[]")]


def _section_title(section: str) -> str:
    model = section_of(_field(section))
    first = (model.__doc__ or "").strip().splitlines()[0] if model else ""
    return f"`{section}`: {first.rstrip('.')}" if first else f"`{section}`"


def _setting(path: str, info: FieldInfo) -> Setting:
    default = None if info.is_required() else info.get_default(call_default_factory=True, validated_data={})
    if info.is_required() or default is PydanticUndefined:
        shown = None
    else:
        shown = json.dumps(_plain(default), ensure_ascii=False)
    return Setting(path, _type(info.annotation, info), shown, info.description or "")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path | SecretStr) else value


def _type(annotation: Any, info: FieldInfo | None = None) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{argument}`" for argument in arguments)
    if origin in (Union, UnionType):
        return _type(next(argument for argument in arguments if argument is not type(None)), info)
    if origin in (tuple, list):
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "mapping"
    names = {int: "integer", float: "number", bool: "boolean", Path: "path", SecretStr: "secret"}
    name = names.get(
        annotation, "section" if isinstance(annotation, type) and issubclass(annotation, BaseModel) else "text"
    )
    return name + _bounds(info)


def _bounds(info: FieldInfo | None) -> str:
    bounds = []
    for limit in info.metadata if info else ():
        if isinstance(limit, annotated_types.Ge):
            bounds.append(f"at least {limit.ge}")
        elif isinstance(limit, annotated_types.Gt):
            bounds.append(f"more than {limit.gt}")
        elif isinstance(limit, annotated_types.Le):
            bounds.append(f"at most {limit.le}")
    return f" ({', '.join(bounds)})" if bounds else ""


def main(arguments: list[str]) -> None:
    """Write the page to the path given."""
    path = Path(arguments[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
