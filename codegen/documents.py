"""Reading and writing JSON and YAML so that the same document always gives the same bytes.

`Json` is whatever JSON can hold. `dict` keeps the key order of the file, so the output reads like the input.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from codegen.errors import ContractError

Json: TypeAlias = Any
Object: TypeAlias = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML as JSON: no timestamps, no yes/no booleans, no duplicate keys."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - declared by the base class
        first: [
            (tag, regexp)
            for tag, regexp in resolvers
            if tag not in {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool"}
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ContractError(f"{self.name}:{line}: key {key.value!r} appears twice in one object")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class _Dumper(yaml.SafeDumper):
    """No anchors: a reader should not have to follow `*id001`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def read(path: Path) -> Object:
    """The JSON or YAML document in `path`, which must be an object."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        document = json.loads(text)
    else:
        loader = _Loader(text)
        loader.name = str(path.name)
        try:
            document = loader.get_single_data()
        finally:
            loader.dispose()
    if not isinstance(document, dict):
        raise ContractError(f"{path}: expected an object at the top, found {type(document).__name__}")
    return document


def to_json(document: Json) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def to_yaml(document: Json) -> str:
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return text


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901) as a URI fragment."""
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def rewrite(node: Json, rule: Callable[[Object], Json]) -> Json:
    """A copy of `node` in which `rule` has replaced every object, innermost first."""
    if isinstance(node, dict):
        return rule({key: rewrite(value, rule) for key, value in node.items()})
    if isinstance(node, list):
        return [rewrite(value, rule) for value in node]
    return copy.copy(node)


def objects(node: Json) -> Iterator[Object]:
    """Every object in `node`, outermost first."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)
