"""Dataclasses as the form of a request: the same fields read values and describe themselves.

A request is a frozen dataclass whose fields are made by ``rule``. ``from_json`` and ``from_query``
make one, or raise ``InvalidRequest`` naming the field; ``json_schema`` describes what they accept.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from llamactl.errors import InvalidRequest
from llamactl.web.answer_schema import JSON_NAMES
from llamactl.web.jsonbody import kind_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from werkzeug.datastructures import MultiDict

    T = TypeVar("T", bound=DataclassInstance)

# Beyond this not every whole number is a float of its own, and no setting here means one.
LARGEST = 2**53
YES_OR_NO = {"true": True, "1": True, "false": False, "0": False}
WANTED: Mapping[object, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def rule(
    doc: str,
    *,
    default: object = dataclasses.MISSING,
    minimum: float | None = None,
    maximum: float | None = None,
    longest: int | None = None,
    example: object = None,
) -> Any:
    """A field of a request; one without a default must be given. ``longest`` is in characters."""
    said = {"minimum": minimum, "maximum": maximum, "maxLength": longest, "example": example}
    known = {name: value for name, value in said.items() if value is not None}
    return dataclasses.field(default=default, metadata={"description": doc, **known})


def from_json(form: type[T], body: Mapping[str, object]) -> T:
    """The request that a JSON object spells."""
    return _read(form, body, _json_value)


def from_query(form: type[T], query: MultiDict[str, str]) -> T:
    """The request that a query string spells; a name that is given twice is refused."""
    for name, values in query.lists():
        if len(values) > 1:
            raise InvalidRequest(f"{name[:100]!r} is given {len(values)} times", field=name)
    return _read(form, dict(query.items()), _query_value)


def json_schema(form: type[DataclassInstance]) -> dict[str, object]:
    """What ``from_json`` accepts for this form, as JSON Schema."""
    hints = typing.get_type_hints(form)
    fields = dataclasses.fields(form)
    return {
        "type": "object",
        "properties": {field.name: _described(hints[field.name], field) for field in fields},
        "required": [field.name for field in fields if field.default is dataclasses.MISSING],
        "additionalProperties": False,
    }


def query_parameters(form: type[DataclassInstance]) -> list[dict[str, object]]:
    """What ``from_query`` accepts for this form, as OpenAPI's parameters."""
    hints = typing.get_type_hints(form)
    parameters: list[dict[str, object]] = []
    for field in dataclasses.fields(form):
        schema = _described(_without_none(hints[field.name])[0], field)
        parameters.append(
            {
                "name": field.name,
                "in": "query",
                "required": field.default is dataclasses.MISSING,
                "description": schema.pop("description"),
                "schema": schema,
            }
        )
    return parameters


_Convert = Callable[[Any, object, str], object]


def _read(form: type[T], values: Mapping[str, object], convert: _Convert) -> T:
    hints = typing.get_type_hints(form)
    fields = {field.name: field for field in dataclasses.fields(form)}
    for name in values:
        if name not in fields:
            known = f"Known here: {', '.join(fields)}." if fields else "None is known here."
            raise InvalidRequest(f"{name[:100]!r} is not a field", hint=known, field=name)
    found: dict[str, object] = {}
    for name, field in fields.items():
        if name in values:
            found[name] = convert(hints[name], values[name], name)
            _check_limits(found[name], field)
        elif field.default is dataclasses.MISSING:
            raise InvalidRequest(f"{name} is missing", hint=_hint(field), field=name)
    return form(**found)


def _json_value(hint: Any, value: object, name: str) -> object:
    kind, nullable = _without_none(hint)
    if value is None and nullable:
        return None
    right = isinstance(value, bool) if kind is bool else not isinstance(value, bool)
    if right and kind is float and isinstance(value, int | float) and abs(value) < LARGEST:
        return float(value)
    if right and kind in JSON_NAMES and isinstance(value, kind):
        return value
    or_null = " or null" if nullable else ""
    raise InvalidRequest(
        f"{name} must be {WANTED[kind]}{or_null}, not {kind_of(value)}", field=name
    )


def _query_value(hint: Any, value: object, name: str) -> object:
    kind, _ = _without_none(hint)
    text = str(value)
    if kind is str:
        return text
    if kind is bool and text.lower() in YES_OR_NO:
        return YES_OR_NO[text.lower()]
    if kind is int and re.fullmatch(r"-?[0-9]{1,15}", text):
        return int(text)
    if kind is float and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", text):
        return float(text)
    raise InvalidRequest(f"{name} must be {WANTED[kind]}, not {text[:100]!r}", field=name)


def _check_limits(value: object, field: dataclasses.Field[Any]) -> None:
    limits = field.metadata
    if isinstance(value, str):
        longest = limits.get("maxLength", math.inf)
        if len(value) > longest:
            raise InvalidRequest(
                f"{field.name} may have {longest} characters, not {len(value)}", field=field.name
            )
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = limits.get("minimum", -math.inf), limits.get("maximum", math.inf)
        if not low <= value <= high:
            between = f"at least {low}" if high == math.inf else f"between {low} and {high}"
            raise InvalidRequest(f"{field.name} must be {between}", field=field.name)


def _hint(field: dataclasses.Field[Any]) -> str:
    example = field.metadata.get("example")
    return str(field.metadata["description"]) + (f" For example {example}." if example else "")


def _described(hint: Any, field: dataclasses.Field[Any]) -> dict[str, object]:
    kind, nullable = _without_none(hint)
    name = JSON_NAMES[kind]
    described: dict[str, object] = {"type": [name, "null"] if nullable else name, **field.metadata}
    if field.default is not dataclasses.MISSING and field.default is not None:
        described["default"] = field.default
    return described


def _without_none(hint: Any) -> tuple[Any, bool]:
    """The type itself, and whether null may stand for it."""
    if isinstance(hint, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
        return kinds[0], True
    return hint, False
