"""TypedDicts as JSON Schema: what an answer is made of describes it, so the two cannot drift apart.

The functions that make answers return these types, and mypy holds them to it.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

#: What JSON Schema calls the plain types.
JSON_NAMES: Mapping[object, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
REFERENCE = "#/components/schemas/"


def schema_of(kind: Any) -> dict[str, object]:
    """The JSON Schema of a type; a TypedDict in it is a reference to its component."""
    if kind in JSON_NAMES:
        return {"type": JSON_NAMES[kind]}
    if kind is None or kind is types.NoneType:
        return {"type": "null"}
    if typing.is_typeddict(kind):
        return {"$ref": REFERENCE + component_name(kind)}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin in (types.UnionType, typing.Union):
        return _any_of([schema_of(each) for each in arguments])
    if kind in (object, Any):
        return {}
    raise TypeError(f"{kind!r} is no part of an answer")


def component_name(kind: Any) -> str:
    """The name of a TypedDict's component: ``JobJson`` is ``Job``."""
    return str(kind.__name__).removesuffix("Json")


def components(kinds: Iterator[Any]) -> dict[str, object]:
    """The components that these types need, by name, those within others too."""
    found: dict[str, object] = {}
    waiting = list(kinds)
    while waiting:
        kind = waiting.pop()
        if not typing.is_typeddict(kind):
            waiting += typing.get_args(kind)
            continue
        name = component_name(kind)
        if name not in found:
            hints = typing.get_type_hints(kind)
            found[name] = _component(kind, hints)
            waiting += hints.values()
    return dict(sorted(found.items()))


def _component(kind: Any, hints: Mapping[str, Any]) -> dict[str, object]:
    said = (inspect.getdoc(kind) or "").replace("\n", " ").replace("``", "`")
    return {
        "type": "object",
        "description": said,
        "properties": {name: schema_of(hint) for name, hint in hints.items()},
        "required": sorted(kind.__required_keys__, key=list(hints).index),
    }


def _any_of(parts: list[dict[str, object]]) -> dict[str, object]:
    if all(list(part) == ["type"] for part in parts):
        return {"type": [part["type"] for part in parts]}
    return {"anyOf": parts}
