"""A route of the management API and its description in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response

from llamactl.web import forms

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

View = Callable[..., Response]


@dataclass(frozen=True)
class Operation:
    """What a route takes and gives, as ``/openapi.json`` tells it.

    ``gives`` is the type of what a success answers: a TypedDict, or a list of them. Where there is
    none, ``media`` are the kinds of text that it answers. ``partial``: the body may leave out what
    is to stay as it is. ``takes`` is the JSON Schema of a body that the view reads by itself.
    """

    summary: str
    answers: Mapping[int, str]
    body: type[DataclassInstance] | None = None
    query: type[DataclassInstance] | None = None
    partial: bool = False
    takes: Mapping[str, object] | None = None
    gives: Any = None
    media: Sequence[str] = ()


OPERATIONS: dict[View, Operation] = {}


def route(
    blueprint: Blueprint,
    method: str,
    path: str,
    *,
    body: type[DataclassInstance] | None = None,
    query: type[DataclassInstance] | None = None,
    current: Callable[[], Mapping[str, object]] | None = None,
    takes: Mapping[str, object] | None = None,
    gives: Any = None,
    media: Sequence[str] = (),
    answers: Mapping[int, str],
) -> Callable[[View], View]:
    """Answer ``method`` at ``path``, with and without a slash at its end.

    The view gets the path's variables, and what the request said as ``body`` and ``query`` where
    these forms are named: it never sees a request that does not fit them. ``current`` gives what a
    body may leave out.
    """

    def register(view: View) -> View:
        @wraps(view)
        def parsed(**variables: Any) -> Response:
            if query is not None:
                variables["query"] = forms.query(query)
            if body is not None:
                variables["body"] = forms.body(body, current() if current else None)
            return view(**variables)

        summary = (inspect.getdoc(view) or "").partition("\n\n")[0]
        partial = current is not None
        OPERATIONS[parsed] = Operation(summary, answers, body, query, partial, takes, gives, media)
        blueprint.add_url_rule(path, view_func=parsed, methods=[method], strict_slashes=False)
        return parsed

    return register
