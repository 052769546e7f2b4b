"""How a button's request is answered, from a plain form and from htmx."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from flask import Response, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from llamactl.errors import LlamactlError

P = ParamSpec("P")


def by_htmx() -> bool:
    """Whether htmx sent this, and a whole page is no answer."""
    return "HX-Request" in request.headers


def done(address: str) -> AnyResponse:
    """It is done: back to the page at ``address``; with htmx its parts ask for themselves again."""
    if by_htmx():
        return Response(status=204, headers={"HX-Trigger": "refresh"})
    return redirect(address, 303)


def button(view: Callable[P, AnyResponse]) -> Callable[P, AnyResponse]:
    """Tell an error of this button on the page it is on, where htmx can; else as a page."""

    @wraps(view)
    def pressed(*args: P.args, **kwargs: P.kwargs) -> AnyResponse:
        try:
            return view(*args, **kwargs)
        except LlamactlError as error:
            if not by_htmx():
                raise
            # 422 is the one error whose body htmx is told to show, in base.html.
            said = render_template("_alert.html", error=error)
            headers = {"HX-Retarget": "#alerts", "HX-Reswap": "innerHTML", "HX-Trigger": "refresh"}
            return Response(said, status=422, mimetype="text/html", headers=headers)

    return pressed
