"""What the page of the interface shows: our own ``/openapi.json`` as people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: The rooms in the order of the page: a title, and how the addresses in it begin.
ROOMS = (
    ("Inference", ("/v1", "/llama-cpp")),
    ("Models and downloads", ("/api/v1/models",)),
    ("Instances", ("/api/v1/instances", "/api/v1/llama-cpp")),
    ("llama.cpp", ("/api/v1/backends/llama-cpp",)),
    ("Keys", ("/api/v1/auth",)),
    ("The server", ("/",)),
)
#: The same routes as those at the shorter address; showing both would say nothing more.
SAME = "/api/v1/backends/llama-cpp/models"


@dataclass(frozen=True)
class ValueView:
    """One variable, query parameter or field; ``link`` is the component that it is made of."""

    name: str
    place: str
    kind: str
    link: str
    required: bool
    help: str


@dataclass(frozen=True)
class AnswerView:
    """One answer; ``link`` is the component that ``kind`` names."""

    status: str
    meaning: str
    kind: str
    link: str


@dataclass(frozen=True)
class OperationView:
    """One method at one address, with what it takes and what it answers."""

    method: str
    path: str
    summary: str
    anchor: str
    values: tuple[ValueView, ...]
    answers: tuple[AnswerView, ...]


@dataclass(frozen=True)
class RoomView:
    name: str
    operations: tuple[OperationView, ...]


@dataclass(frozen=True)
class ComponentView:
    """One kind of object that answers are made of."""

    name: str
    help: str
    values: tuple[ValueView, ...]


@dataclass(frozen=True)
class DocsView:
    rooms: tuple[RoomView, ...]
    components: tuple[ComponentView, ...]


def docs_view(document: Mapping[str, Any]) -> DocsView:
    """The operations of an OpenAPI document by room, and what their answers are made of."""
    rooms: dict[str, list[OperationView]] = {title: [] for title, _ in ROOMS}
    for path, methods in document["paths"].items():
        if not _within(path, SAME):
            rooms[_room(path)] += [_operation(path, *each) for each in methods.items()]
    components = document["components"]["schemas"].items()
    return DocsView(
        tuple(RoomView(title, tuple(operations)) for title, operations in rooms.items()),
        tuple(
            ComponentView(name, _said(schema), tuple(_fields(schema, "")))
            for name, schema in components
        ),
    )


def _within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")


def _room(path: str) -> str:
    return next(title for title, prefixes in ROOMS if any(_within(path, each) for each in prefixes))


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> OperationView:
    return OperationView(
        method=method.upper(),
        path=path,
        summary=operation["summary"],
        anchor=operation["operationId"],
        values=tuple(_values(operation)),
        answers=tuple(_answer(status, answer) for status, answer in operation["responses"].items()),
    )


def _answer(status: str, answer: Mapping[str, Any]) -> AnswerView:
    content = answer.get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    kind = _kind(schema) if schema else " or ".join(content)
    return AnswerView(status, answer["description"], kind, _link(schema))


def _values(operation: Mapping[str, Any]) -> Iterator[ValueView]:
    for parameter in operation.get("parameters", ()):
        yield ValueView(
            parameter["name"],
            parameter["in"],
            _kind(parameter.get("schema", {})),
            "",
            bool(parameter.get("required")),
            parameter.get("description", ""),
        )
    for taken in operation.get("requestBody", {}).get("content", {}).values():
        yield from _fields(taken.get("schema", {}), "body")


def _fields(schema: Mapping[str, Any], place: str) -> Iterator[ValueView]:
    for name, field in schema.get("properties", {}).items():
        required = name in schema.get("required", ())
        yield ValueView(name, place, _kind(field), _link(field), required, _said(field))


def _said(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description", "")).replace("`", "")


def _kind(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _link(schema)
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    inner = schema.get("additionalProperties")
    return f"object of {_kind(inner)}" if isinstance(inner, Mapping) and inner else str(kind)


def _link(schema: Mapping[str, Any]) -> str:
    """The component that a schema names, itself or in what it holds."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    inner = [schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", ())]
    links = (_link(each) for each in inner if isinstance(each, Mapping))
    return next(filter(None, links), "")
