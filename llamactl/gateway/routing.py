"""Which model a request's body names, and the same body with another name in that one place.

Pure. A body is never written anew: big numbers, the order of keys, spaces and escapes reach the
instance as the client sent them, since only the bytes of the model's name are ever exchanged.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from email.message import Message
from json import JSONDecodeError
from typing import Any

from llamactl.errors import InvalidRequest, ModelNotFound

MAXIMUM_NAME = 512
_MAXIMUM_PARTS = 256
_LONGEST_PART_HEAD = 8 * 1024
#: Values that a JSON body may hold: each costs a hundred bytes, and time in which all else stands.
_MAXIMUM_VALUES = 1_000_000
_BLANK = re.compile(r"[ \t\r\n]*")


def no_model(name: str) -> ModelNotFound:
    """The error for what is unknown and for what is forbidden, which are not told apart."""
    return ModelNotFound(
        f"There is no model {name!r}",
        hint="GET /v1/models lists the names that this key may use",
    )


@dataclass(frozen=True)
class Body:
    """A request's body as it came, with what was read from it.

    ``value`` is the parsed JSON object, None for a form; ``model`` is None where none is named.
    """

    raw: bytes
    model: str | None
    value: dict[str, Any] | None
    _start: int = 0
    _end: int = 0

    def with_model(self, name: str) -> bytes:
        """The same bytes, but for the model's name."""
        written = name.encode() if self.value is None else json.dumps(name).encode()
        return self.raw[: self._start] + written + self.raw[self._end :]


def readings(model: str) -> list[tuple[str, str | None]]:
    """What a model's name may mean, the likeliest first: (an instance, the model inside it).

    The whole may be a name or an alias; else the part before the first slash is, and the rest is a
    model that this instance, a router, knows.
    """
    meanings: list[tuple[str, str | None]] = [(model, None)]
    head, _, tail = model.partition("/")
    if head and tail:
        meanings.append((head, tail))
    return meanings


def read_json(raw: bytes) -> Body:
    """Read a JSON body. Raises ``InvalidRequest`` for whatever is not one JSON object."""
    _check_values(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The body is not UTF-8: byte {error.start} is wrong") from error
    try:
        value, name, span = _read_object(text)
    except JSONDecodeError as error:
        raise InvalidRequest(
            f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply") from error
    if span is None:
        return Body(raw, None, value)
    if not isinstance(name, str):
        raise InvalidRequest("model must be a text", field="model")
    start, end = span
    if not raw.isascii():
        start, end = len(text[:start].encode()), len(text[:end].encode())
    return Body(raw, _checked(name), value, start, end)


def read_form(raw: bytes, content_type: str) -> Body:
    """Read a multipart body. Raises ``InvalidRequest`` if it is not one."""
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise InvalidRequest("The body is not multipart/form-data with a boundary")
    span = _find_field(raw, b"--" + boundary.encode("latin-1", "replace"), "model")
    if span is None:
        return Body(raw, None, None)
    start, end = span
    try:
        name = raw[start:end].decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest("model must be UTF-8", field="model") from error
    return Body(raw, _checked(name), None, start, end)


def _check_values(raw: bytes) -> None:
    if _marks(raw) <= _MAXIMUM_VALUES:
        return
    # What the strings hold looks like values too; they are taken out only where that matters.
    bare = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    many = bare.count(b'"') > 4 * _MAXIMUM_VALUES
    if many or _marks(b"".join(bare.split(b'"')[::2])) > _MAXIMUM_VALUES:
        raise InvalidRequest(f"The body holds more than {_MAXIMUM_VALUES} values")


def _marks(raw: bytes) -> int:
    return sum(raw.count(mark) for mark in (b",", b"[", b"{"))


def _read_object(text: str) -> tuple[dict[str, Any], Any, tuple[int, int] | None]:
    """The object in ``text``, the value of its member "model", and where that value lies.

    Walks the members of the outermost object by hand, each value by the standard decoder, since
    that one tells where a value ends and nothing else does.
    """
    # Numbers are only looked past: as floats they cost little, whatever their length.
    decoder = json.JSONDecoder(parse_int=float, parse_constant=_no_constant)
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise InvalidRequest("The body must be a JSON object")
    members: dict[str, Any] = {}
    span: tuple[int, int] | None = None
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        _end_of_text(text, at + 1)
        return members, None, None
    while True:
        if text[at : at + 1] != '"':
            raise JSONDecodeError("Expecting a key in quotes", text, at)
        key, at = decoder.raw_decode(text, at)
        at = _skip(text, _expect(text, at, ":"))
        start = at
        value, at = decoder.raw_decode(text, start)
        if key == "model":
            if span is not None:
                raise InvalidRequest("model is given twice", field="model")
            span = (start, at)
        members[key] = value
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            _end_of_text(text, at + 1)
            return members, members.get("model"), span
        at = _skip(text, _expect(text, at, ","))


def _expect(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != mark:
        raise JSONDecodeError(f"Expecting {mark!r}", text, at)
    return at + 1


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _end_of_text(text: str, at: int) -> None:
    at = _skip(text, at)
    if at != len(text):
        raise JSONDecodeError("Something follows the object", text, at)


def _no_constant(name: str) -> float:
    raise InvalidRequest(f"The body is not JSON: {name} is no number there")


def _find_field(raw: bytes, delimiter: bytes, wanted: str) -> tuple[int, int] | None:
    """Where the value of a form's field lies; its parts are walked, never copied.

    Nothing but the end of a line, which some clients write, may stand before the first part: an
    instance that does not take the content type for a form would read a body that is JSON as well,
    and nobody would have looked at that.
    """
    span: tuple[int, int] | None = None
    at = 2 if raw.startswith(b"\r\n") else 0
    for _ in range(_MAXIMUM_PARTS):
        if not raw.startswith(delimiter, at):
            raise InvalidRequest("The form does not begin with its boundary")
        at += len(delimiter)
        if raw[at : at + 2] == b"--":
            return span
        body = raw.find(b"\r\n\r\n", at, at + _LONGEST_PART_HEAD)
        following = raw.find(b"\r\n" + delimiter, at)
        if body < 0 or following < 0 or body > following:
            raise InvalidRequest("The form is cut off, or a part of it has no end of its headers")
        if _names_field(raw[at:body], wanted):
            if span is not None:
                raise InvalidRequest(f"{wanted} is given twice", field=wanted)
            span = (body + 4, following)
        at = following + 2
    raise InvalidRequest(f"The form has more than {_MAXIMUM_PARTS} parts")


def _names_field(head: bytes, wanted: str) -> bool:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            header = Message()
            header["content-disposition"] = value.decode("latin-1").strip()
            return header.get_param("name", header="content-disposition") == wanted
    return False


def _checked(name: str) -> str:
    if not 0 < len(name) <= MAXIMUM_NAME or not name.isprintable():
        raise InvalidRequest(
            f"model must be a text of 1 to {MAXIMUM_NAME} printable characters", field="model"
        )
    return name
