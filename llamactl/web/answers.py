"""Answers that are not pages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from flask import Response


def json_answer(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON answer with its keys in the order given, which no cache may keep."""
    # File names that are no UTF-8 reach us as lone surrogates: only ASCII escapes can carry them.
    text = json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    answer = Response(text + "\n", status=status, mimetype="application/json", headers=headers)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def empty_answer() -> Response:
    """204: done, and nothing to say."""
    return Response(status=204)


def text_answer(body: str | bytes | Iterable[bytes]) -> Response:
    """Plain text that a browser shows as text, whatever is in it."""
    answer = Response(body, mimetype="text/plain")
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Cache-Control"] = "no-store"
    return answer
