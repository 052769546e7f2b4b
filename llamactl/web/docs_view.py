"""What the page of the interface shows: our own ``/openapi.json`` as people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ValueView:
    """One variable, query parameter or field of a body."""

    name: str
    place: str
    kind: str
    required: bool
    help: str


@dataclass(frozen=True)
class OperationView:
    """One method at one address, with what it takes and what it answers."""

    method: str
    path: str
    summary: str
    anchor: str
    values: tuple[ValueView, ...]
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RoomView:
    """The operations below one address, such as ``/api/v1/instances``."""

    name: str
    operations: tuple[OperationView, ...]


def docs_view(document: Mapping[str, Any]) -> tuple[RoomView, ...]:
    """The operations of an OpenAPI document by room, in the document's order."""
    rooms: dict[str, list[OperationView]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            view = OperationView(
                method=method.upper(),
                path=path,
                summary=operation["summary"],
                anchor=operation["operationId"],
                values=tuple(_values(operation)),
                answers=tuple(
                    (status, answer["description"])
                    for status, answer in operation["responses"].items()
                ),
            )
            rooms.setdefault(_room(path), []).append(view)
    return tuple(RoomView(name, tuple(operations)) for name, operations in rooms.items())


def _room(path: str) -> str:
    parts = path.strip("/").split("/")
    return "/" + "/".join(parts[:3] if parts[0] == "api" else parts[:1])


def _values(operation: Mapping[str, Any]) -> Iterator[ValueView]:
    for parameter in operation.get("parameters", ()):
        yield ValueView(
            parameter["name"],
            parameter["in"],
            _kind(parameter.get("schema", {})),
            bool(parameter.get("required")),
            parameter.get("description", ""),
        )
    content = operation.get("requestBody", {}).get("content", {})
    for taken in content.values():
        body = taken.get("schema", {})
        for name, field in body.get("properties", {}).items():
            required = name in body.get("required", ())
            yield ValueView(name, "body", _kind(field), required, field.get("description", ""))


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "")
    if isinstance(kind, list):
        return " or ".join(kind)
    if not kind and "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    return str(kind or "any")
