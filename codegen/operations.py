"""The operations of the contract as data, and `generated/operations.py`, the table that the server runs on."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass

from codegen.documents import Json, Object, pointer
from codegen.errors import ContractError
from codegen.models import HEADER
from codegen.normalise import SCHEMA_PREFIX

METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
STREAMS = ("text/event-stream", "application/jsonl")
_SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """`type` is the JSON type, `model` the model of the value or of its items, `default` as Python source or None."""

    name: str
    location: str
    required: bool
    type: str
    model: str | None
    annotation: str
    default: str | None


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; models by name. `response` is the JSON answer, `stream` one event or line of a streamed one."""

    operation_id: str
    module: str
    method: str
    path: str
    tag: str
    summary: str
    parameters: tuple[Parameter, ...]
    body: str | None
    response: str | None
    nullable: bool
    stream: str | None
    stream_media: str | None
    statuses: tuple[int, ...]
    secured: bool

    @property
    def arguments(self) -> list[tuple[str, str, str | None]]:
        """(name, annotation, default) after `call`: path, required query, body, then what may be left out."""
        path = [p for p in self.parameters if p.location == "path"]
        query = [p for p in self.parameters if p.location == "query"]
        ordered = [(p.name, p.annotation, None) for p in [*path, *(q for q in query if q.required)]]
        if self.body is not None:
            ordered.append(("body", self.body, None))
        return ordered + [(p.name, p.annotation, p.default or "None") for p in query if not p.required]

    @property
    def returns(self) -> tuple[str, ...]:
        """The alternatives of the return annotation, in order."""
        alternatives = [] if self.response is None else [self.response]
        if self.nullable or (self.response is None and self.stream is None):
            alternatives.append("None")
        if self.stream is not None:
            alternatives.append(f"Iterator[{self.stream}]")
        return tuple(alternatives)


def read(contract: Object) -> list[Operation]:
    """Every operation of the public contract, sorted by module and then in the order of the document.

    Raises:
        ContractError: lists operations without an operationId (with a proposal) and shapes that are not supported.
    """
    modules = {tag["name"]: tag["x-module"] for tag in contract.get("tags", []) if "x-module" in tag}
    problems: list[str] = []
    operations: list[Operation] = []
    for path, item in contract["paths"].items():
        for method, entry in item.items():
            if method not in METHODS:
                problems.append(f"{pointer('paths', path, method)}: shared path items are not supported")
                continue
            try:
                operations.append(_read_one(contract, modules, path, method, entry))
            except ContractError as problem:
                problems.append(str(problem))
    seen: dict[str, str] = {}
    for operation in operations:
        where = f"{operation.method} {operation.path}"
        other = seen.setdefault(operation.operation_id, where)
        if other != where:
            problems.append(f"operationId {operation.operation_id} names both {other} and {where}")
    if problems:
        raise ContractError("\n".join(problems))
    return sorted(operations, key=lambda operation: operation.module)


def _read_one(contract: Object, modules: dict[str, str], path: str, method: str, entry: Object) -> Operation:
    where = pointer("paths", path, method)
    tags = entry.get("tags", [])
    if len(tags) != 1:
        raise ContractError(f"{where}/tags: exactly one tag names the handlers module, found {tags}")
    module = modules.get(tags[0]) or module_name(tags[0])
    name = entry.get("operationId")
    if name is None:
        raise ContractError(
            f"{where}: no operationId. Pin one in codegen/overlay.yaml, for instance\n"
            f"- target: $.paths['{path}'].{method}\n  update: {{operationId: {propose(path, method)}}}"
        )
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ContractError(f"{where}/operationId: {name!r} is not a snake_case function name")
    listed = [_parameter(p, f"{where}/parameters/{i}") for i, p in enumerate(entry.get("parameters", []))]
    parameters = tuple(
        sorted(listed, key=lambda p: path.find("{" + p.name + "}") if p.location == "path" else len(path))
    )
    answers = {
        media: content.get("schema", {})
        for status, response in entry["responses"].items()
        if status.startswith("2")
        for media, content in response.get("content", {}).items()
    }
    streams = [media for media in answers if media in STREAMS]
    if len(streams) > 1 or set(answers) - {"application/json", *STREAMS}:
        raise ContractError(f"{where}/responses: cannot serve the media types {sorted(answers)}")
    response, nullable = _answer(answers.get("application/json"), where)
    if streams and "oneOf" in answers[streams[0]]:
        raise ContractError(
            f"{where}/responses: {streams[0]} is a choice; in codegen/overlay.yaml give the answer as application/json "
            "and one event as text/event-stream"
        )
    stream = _answer(answers[streams[0]], where)[0] if streams else None
    described = entry["responses"].get("200", {}).get("description", "")
    return Operation(
        operation_id=name,
        module=module,
        method=method.upper(),
        path=path,
        tag=tags[0],
        summary=_sentence(entry.get("summary") or ("" if described == "OK" else described)),
        parameters=parameters,
        body=_body(entry.get("requestBody"), f"{where}/requestBody"),
        response=response,
        nullable=nullable,
        stream=stream,
        stream_media=streams[0] if streams else None,
        statuses=tuple(sorted(int(status) for status in entry["responses"] if status.isdigit())),
        secured=any(bool(scheme) for scheme in entry.get("security") or contract.get("security") or []),
    )


def _sentence(text: str) -> str:
    text = re.sub(r"\.? \*\*OR\*\* ", ", or ", " ".join(text.split()))
    return text if not text or text.endswith(".") else text + "."


def module_name(tag: str) -> str:
    """`BatchInference (Coming Soon)` -> `batch_inference`, `VectorDBs` -> `vector_dbs`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"\s*\(.*\)", "", tag)).replace(" ", "_").lower()


def class_name(module: str) -> str:
    """`vector_dbs` -> `VectorDbs`."""
    return "".join(part.capitalize() for part in module.split("_"))


def propose(path: str, method: str) -> str:
    """An operationId for an operation that has none; a person decides, so it only needs to be a good start."""
    parts = [part.replace("-", "_") for part in path.removeprefix("/v1/").split("/")]
    names = [part for part in parts if not part.startswith("{")]
    last = names[-1]
    singular = last.removesuffix("s")
    if parts[-1].startswith("{"):
        return {"get": "retrieve_", "delete": "unregister_", "put": "replace_"}.get(method, f"{method}_") + singular
    if method == "get":
        return f"list_{last}" if last.endswith("s") else f"get_{last}"
    return f"create_{singular}" if method == "post" and last.endswith("s") else last


def _name(schema: Json, where: str) -> str:
    ref = schema.get("$ref", "")
    if not ref.startswith(SCHEMA_PREFIX):
        raise ContractError(f"{where}: an inline schema; give it a name under components/schemas by an overlay action")
    return str(ref.removeprefix(SCHEMA_PREFIX))


def _answer(schema: Json, where: str) -> tuple[str | None, bool]:
    if schema is None or schema == {"type": "null"}:
        return None, False
    if "oneOf" in schema:
        named = [alternative for alternative in schema["oneOf"] if alternative != {"type": "null"}]
        if len(named) == 1 and len(schema["oneOf"]) == 2:
            return _name(named[0], f"{where}/responses"), True
    return _name(schema, f"{where}/responses"), False


def _body(body: Json, where: str) -> str | None:
    if body is None:
        return None
    if list(body.get("content", {})) != ["application/json"] or not body.get("required"):
        raise ContractError(f"{where}: only required application/json bodies are supported")
    return _name(body["content"]["application/json"]["schema"], where)


def _parameter(entry: Object, where: str) -> Parameter:
    if entry.get("in") not in ("path", "query"):
        raise ContractError(f"{where}: parameters in {entry.get('in')!r} are not supported")
    schema = entry["schema"] if "schema" in entry else entry["content"]["application/json"]["schema"]
    model: str | None = None
    if "$ref" in schema:
        kind, model = "object", _name(schema, where)
        annotation = model
    elif schema.get("type") == "array":
        kind = "array"
        items = schema.get("items", {})
        if items.get("type") in _SCALARS:
            annotation = f"list[{_SCALARS[items['type']]}]"
        else:
            model = _name(items, f"{where}/schema/items")
            annotation = f"list[{model}]"
    elif schema.get("type") in _SCALARS:
        kind = schema["type"]
        annotation = _SCALARS[kind]
    else:
        raise ContractError(f"{where}: a parameter of type {schema.get('type')!r} is not supported")
    required = bool(entry.get("required"))
    default = repr(schema["default"]) if "default" in schema else None
    if not required and default is None:
        annotation += " | None"
    return Parameter(entry["name"], entry["in"], required, kind, model, annotation, default)


_PREAMBLE = '''
"""Every operation of the contract as data: routing, responders, metrics labels and the route list read this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import BaseModel
from typing_extensions import TypeAliasType

from generated import models

ModelClass: TypeAlias = type[BaseModel]
ModelType: TypeAlias = type[BaseModel] | TypeAliasType
"""A model class or a named alias (`models.JobStatus`); `pydantic.TypeAdapter` takes both."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """`type` is the JSON type of the value; `model` the model of the value, or of its items when it is an array."""

    name: str
    location: Literal["path", "query"]
    required: bool
    type: Literal["string", "integer", "number", "boolean", "array", "object"]
    model: ModelClass | None


@dataclass(frozen=True, slots=True)
class Operation:
    """`module`.`function` is the handler. `path` is the contract's (`/v1/models/{model_id}`).

    `response_model` is None for an operation that answers `null`, or that only streams. `response_nullable`: the
    contract lets `null` stand for "there is none". `stream_model` is one event (SSE) or one line (jsonl).
    `statuses` are those that the contract lists by number. `secured`: wants a key when the server has keys.
    """

    operation_id: str
    module: str
    function: str
    method: str
    path: str
    tag: str
    summary: str
    parameters: tuple[Parameter, ...]
    body_model: ModelClass | None
    response_model: ModelType | None
    response_nullable: bool
    stream_model: ModelClass | None
    stream_media: Literal["text/event-stream", "application/jsonl"] | None
    statuses: tuple[int, ...]
    secured: bool


'''


def render(operations: list[Operation]) -> str:
    """The source of `generated/operations.py`."""
    return HEADER + "\n" + _PREAMBLE + "".join(_render(operations))


def _render(operations: list[Operation]) -> Iterator[str]:
    yield "OPERATIONS: dict[str, Operation] = {\n"
    for operation in operations:
        yield f"    {operation.operation_id!r}: Operation(\n"
        yield f"        operation_id={operation.operation_id!r},\n"
        yield f"        module={operation.module!r},\n"
        yield f"        function={operation.operation_id!r},\n"
        yield f"        method={operation.method!r},\n"
        yield f"        path={operation.path!r},\n"
        yield f"        tag={operation.tag!r},\n"
        yield f"        summary={operation.summary!r},\n"
        yield from _render_parameters(operation.parameters)
        yield f"        body_model={_model(operation.body)},\n"
        yield f"        response_model={_model(operation.response)},\n"
        yield f"        response_nullable={operation.nullable},\n"
        yield f"        stream_model={_model(operation.stream)},\n"
        yield f"        stream_media={operation.stream_media!r},\n"
        yield f"        statuses={operation.statuses!r},\n"
        yield f"        secured={operation.secured},\n"
        yield "    ),\n"
    yield "}\n"


def _render_parameters(parameters: tuple[Parameter, ...]) -> Iterator[str]:
    if not parameters:
        yield "        parameters=(),\n"
        return
    yield "        parameters=(\n"
    for p in parameters:
        yield f"            Parameter({p.name!r}, {p.location!r}, {p.required}, {p.type!r}, {_model(p.model)}),\n"
    yield "        ),\n"


def _model(name: str | None) -> str:
    return "None" if name is None else f"models.{name}"
