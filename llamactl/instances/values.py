"""From JSON to the values of flags and options: each function gives it or says what is wrong.

Pure. ``field`` is the path that the person wrote, so that an error can name it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from llamactl.errors import InvalidRequest
from llamactl.instances.flags import Flag

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = Scalar | tuple[str, ...]

#: The kernel takes no longer argument than 128 KiB.
LONGEST_TEXT = 100_000
_ON_OFF = {"true": True, "on": True, "yes": True, "1": True}
_ON_OFF |= {"false": False, "off": False, "no": False, "0": False}
_NEGATIVE = re.compile(r"-[0-9]+(\.[0-9]+)?")
_WORD_OR_NUMBER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*|-?[0-9]+")


def text(raw: Any, field: str, *, longest: int = LONGEST_TEXT) -> str:
    """A string without NUL, not empty."""
    if not isinstance(raw, str):
        raise InvalidRequest(f"{field} must be a string, not {_kind(raw)}", field=field)
    if not raw:
        raise InvalidRequest(f"{field} is empty", field=field)
    if "\0" in raw or len(raw) > longest:
        raise InvalidRequest(f"{field} has a NUL in it or is too long", field=field)
    return raw


def argument(raw: Any, field: str) -> str:
    """A string that stands as one word on a command line and can't pass for a flag.

    A negative number can't: llama-server has no flag that is a number.
    """
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        return number_text(raw)
    value = text(raw, field)
    if value.startswith("-") and not _NEGATIVE.fullmatch(value):
        raise InvalidRequest(f"{field} begins with '-', and could be taken for a flag", field=field)
    return value


def truth(raw: Any, field: str) -> bool:
    """true or false, as JSON has them."""
    if not isinstance(raw, bool):
        raise InvalidRequest(f"{field} must be true or false, not {_kind(raw)}", field=field)
    return raw


def boolean(raw: Any, field: str) -> bool:
    """true or false; the usual words for them too, since forms and variables have only text."""
    value = _ON_OFF.get(raw.strip().lower()) if isinstance(raw, str) else raw
    if not isinstance(value, bool):
        raise InvalidRequest(f"{field} must be true or false, not {_kind(raw)}", field=field)
    return value


def integer(raw: Any, field: str, *, low: int | None = None, strict: bool = False) -> int:
    """A whole number, as JSON has it, or in text unless that is to be ``strict``."""
    value = number(raw, field, strict=strict)
    if value != int(value):
        raise InvalidRequest(f"{field} must be a whole number", field=field)
    if low is not None and value < low:
        raise InvalidRequest(f"{field} must be {low} or more", field=field)
    return int(value)


def number(raw: Any, field: str, *, low: float | None = None, strict: bool = False) -> float:
    """A finite number, as JSON has it, or in text unless that is to be ``strict``."""
    value = raw
    if isinstance(raw, str) and not strict:
        try:
            value = int(raw) if re.fullmatch(r"\s*[+-]?[0-9]+\s*", raw) else float(raw)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidRequest(f"{field} must be a number, not {_kind(raw)}", field=field)
    # A whole number may be too large to be made a float, so only floats are asked for more.
    if isinstance(value, float) and math.isnan(value):
        raise InvalidRequest(f"{field} must be a number", field=field)
    if abs(value) > 2**63:
        raise InvalidRequest(f"{field} is too large", field=field)
    if low is not None and value < low:
        raise InvalidRequest(f"{field} must be {low:g} or more", field=field)
    return value


def mapping(raw: Any, field: str) -> Mapping[str, Any]:
    """An object with string keys; null is an empty one."""
    if raw is None:
        return {}
    if not isinstance(raw, Mapping) or not all(isinstance(key, str) for key in raw):
        raise InvalidRequest(f"{field} must be an object, not {_kind(raw)}", field=field)
    return raw


def texts(raw: Any, field: str) -> tuple[str, ...]:
    """A list of strings; null is an empty one, one string a list of one."""
    items = [] if raw is None else [raw] if isinstance(raw, str) else raw
    if not isinstance(items, Sequence):
        raise InvalidRequest(f"{field} must be a list of strings, not {_kind(raw)}", field=field)
    return tuple(text(item, field) for item in items)


def flag_value(flag: Flag, raw: Any, field: str) -> Value:
    """The value of one of llama-server's flags, by the flag's kind."""
    if flag.kind in {"switch", "toggle"}:
        return boolean(raw, field)
    if flag.kind == "int":
        return integer(raw, field)
    if flag.kind == "float":
        return number(raw, field)
    if flag.kind == "words":
        return _word(raw, field)
    if flag.is_list or flag.kind == "pair":
        items = raw if isinstance(raw, (list, tuple)) else [raw]
        if flag.kind == "commas":
            items = [part for item in items for part in _parts(item)]
        values = tuple(argument(item, field) for item in items)
        if flag.kind == "pair" and len(values) != 2:
            raise InvalidRequest(f"{field} must be a list of two values", field=field)
        return values
    return argument(raw, field)


def _parts(item: Any) -> list[Any]:
    """The values that one with commas in it stands for."""
    return [part for part in item.split(",") if part] or [item] if isinstance(item, str) else [item]


def number_text(value: float) -> str:
    """A number as a command line has it: ``8`` for 8.0."""
    whole = isinstance(value, int) or (value.is_integer() and abs(value) < 2**53)
    return str(int(value)) if whole else repr(value)


def _word(raw: Any, field: str) -> Scalar:
    if isinstance(raw, bool):
        return "on" if raw else "off"
    if isinstance(raw, int):
        return raw
    value = text(raw, field)
    if not _WORD_OR_NUMBER.fullmatch(value):
        raise InvalidRequest(f"{field} must be a number or one word", field=field)
    return int(value) if re.fullmatch(r"-?[0-9]{1,9}", value) else value


def _kind(raw: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string"}
    if raw is None:
        return "null"
    return names.get(type(raw), "an object" if isinstance(raw, Mapping) else "a list")
