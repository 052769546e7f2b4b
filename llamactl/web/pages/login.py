"""Logging in with a management key, and out again."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.access.throttle import Throttle
from llamactl.errors import AccessDenied, LlamactlError, PermissionDenied, TooManyRequests
from llamactl.web import browser, services
from llamactl.web.errors import problem_of

blueprint = Blueprint("login", __name__)

#: Wrong keys from one address, and from all of them together.
by_address = Throttle()
by_all = Throttle(burst=200, seconds=0.5)
EVERYONE = "everyone"


@blueprint.get("/login")
def form() -> AnyResponse:
    """Show the form, or the page itself to who is logged in already."""
    wanted = request.args.get("next")
    if not browser.needs_login():
        return redirect(browser.page_after_login(wanted), 303)
    return _form(None)


@blueprint.post("/login")
def enter() -> AnyResponse:
    """Open a session for the holder of a management key."""
    try:
        _check(request.form.get("key", "").strip())
    except (AccessDenied, TooManyRequests) as error:
        return _form(error)
    response = redirect(browser.page_after_login(request.args.get("next")), 303)
    browser.open_session(response)
    return response


@blueprint.post("/logout")
def leave() -> AnyResponse:
    """End the session, here and in the browser."""
    response = redirect(url_for("login.form"), 303)
    browser.end_session(response)
    return response


def _check(key: str) -> None:
    # A right key is looked up before anything is counted: nobody can lock its holder out.
    address = request.remote_addr or ""
    try:
        principal = services().keys.authenticate(key)
    except AccessDenied:
        for throttle, who in ((by_address, address), (by_all, EVERYONE)):
            throttle.check(who)
            throttle.failed(who)
        raise
    if not principal.is_management:
        raise PermissionDenied(
            "This key is for inference only", hint="The pages want a management key."
        )


def _form(error: LlamactlError | None) -> Response:
    wanted = request.args.get("next")
    page = Response(render_template("login.html", error=error, next=wanted), mimetype="text/html")
    if error is not None:
        problem = problem_of(error)
        page.status_code = problem.status
        page.headers.extend(
            {name: value for name, value in problem.headers.items() if name == "Retry-After"}
        )
    return page
