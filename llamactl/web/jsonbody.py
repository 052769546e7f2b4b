"""Reading a JSON body without believing it: what cannot mean one thing only is refused."""

from __future__ import annotations

import json
import math

from flask import g, request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from llamactl.errors import InvalidRequest

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32


def json_body() -> dict[str, object]:
    """The request's body, a JSON object.

    Raises Werkzeug's 413 for a body of more than ``MAX_BYTES`` and 415 for another content type,
    and ``InvalidRequest`` for what is not UTF-8, not JSON, not an object, nested deeper than
    ``MAX_DEPTH``, or says one thing twice.
    """
    raw = limited_body(MAX_BYTES)
    if not raw and not request.mimetype:
        raise InvalidRequest("The request has no body", hint="Send a JSON object.")
    # A form or text/plain would let any web page post here without the browser asking first.
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Send the body as JSON, with Content-Type: application/json.")
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body must be a JSON object, not {kind_of(value)}")
    g.json_body = value
    return value


def known_body() -> dict[str, object]:
    """What ``json_body`` read of this request; nothing where it read none."""
    found: dict[str, object] = g.get("json_body", {})
    return found


def limited_body(max_bytes: int) -> bytes:
    """The request's body as it came. Raises Werkzeug's 413 for more than ``max_bytes``."""
    # Where no length was announced, Werkzeug cuts the body at its limit and says nothing: one byte
    # more than is allowed tells what is whole from what was cut.
    request.max_content_length = max_bytes + 1
    raw = request.get_data(cache=False)
    if len(raw) > max_bytes:
        raise RequestEntityTooLarge
    return raw


def parse_json(raw: bytes) -> object:
    """The value that ``raw`` spells by the letter of RFC 8259, or ``InvalidRequest``."""
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The body is not UTF-8, from byte {error.start} on") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"The body is not JSON: {error.msg} at {place}") from None
    except ValueError:
        # The interpreter refuses integers of thousands of digits.
        raise InvalidRequest("The body holds a number that is too long") from None
    _check_depth_and_text(value)
    return value


def kind_of(value: object) -> str:
    """What a JSON value is, in a reader's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "an object" if isinstance(value, dict) else "a list"


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in pairs:
        if name in result:
            raise InvalidRequest(f"The body names {name[:100]!r} twice", field=name)
        result[name] = value
    return result


def _refuse_constant(name: str) -> object:
    raise InvalidRequest(f"The body holds {name}, which is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InvalidRequest(f"The body holds the number {digits[:30]}, which is too large")
    return number


def _whole(digits: str) -> int:
    number = int(digits)
    # Whoever reckons with it may want a float, and there is none so large.
    _finite(digits)
    return number


def _check_depth_and_text(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        if not level:
            return
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                below.extend(item.keys())
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level = below
    raise InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels")


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest("The body holds half of a surrogate pair, which is no text") from None
