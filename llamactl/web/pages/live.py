"""Pages that keep themselves up to date, with a script and without.

A page has parts. Each part is a template over one view, and the page's address with ``?part=NAME``
gives that part alone: with a script the browser asks for it now and then and merges what comes.
Without one the whole page is loaded again while something in it moves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from flask import Response, render_template, request
from markupsafe import Markup

MOVING_SECONDS = 1
RESTING_SECONDS = 4
#: Without a script the whole page is loaded, which people notice more.
RELOAD_SECONDS = 3


@dataclass(frozen=True)
class Part:
    """One part of a page: its template, the view that it shows, whether something in it moves.

    A script asks for it each second while it moves, each ``resting_seconds`` otherwise, and sends
    what is typed into the field of the page that the selector ``fed_by`` finds.
    """

    template: str
    view: object
    moving: bool = False
    resting_seconds: int = RESTING_SECONDS
    fed_by: str = ""


Parts = Mapping[str, Callable[[], Part]]


def render_page(
    template: str,
    address: str,
    parts: Parts,
    *,
    reload: bool = True,
    status: int = 200,
    **context: object,
) -> Response:
    """The page at ``address``, or the one part of it that the query asks for.

    A part that is as the browser has it is 204: nothing is merged. ``reload`` is off for a page
    with a form on it, which loading again would empty.
    """
    wanted = request.args.get("part", "")
    if request.method == "GET" and wanted in parts:
        return _one(wanted, address, parts[wanted]())
    built = {name: build() for name, build in parts.items()}
    drawn = {name: _draw(name, address, part)[0] for name, part in built.items()}
    moves = any(part.moving for part in built.values())
    page = render_template(
        template,
        parts=drawn,
        reload_seconds=RELOAD_SECONDS if moves and reload else None,
        **context,
    )
    return Response(page, status=status, mimetype="text/html")


def _one(name: str, address: str, part: Part) -> Response:
    html, seen = _draw(name, address, part)
    if request.args.get("seen") == seen:
        return Response(status=204)
    return Response(html, mimetype="text/html")


def _draw(name: str, address: str, part: Part) -> tuple[Markup, str]:
    # Both are our own templates, which escape what they are given.
    inner = Markup(render_template(part.template, view=part.view))
    seen = hashlib.sha256(inner.encode("utf-8", "replace")).hexdigest()[:16]
    joint = "&" if "?" in address else "?"
    html = render_template(
        "_live.html",
        name=name,
        inner=inner,
        address=f"{address}{joint}{urlencode({'part': name, 'seen': seen})}",
        fed_by=part.fed_by,
        seconds=MOVING_SECONDS if part.moving else part.resting_seconds,
    )
    return Markup(html), seen
