"""Logging in with a management key, and out again."""

from __future__ import annotations

from dataclasses import dataclass, field

from flask import Blueprint, Response, current_app, redirect, render_template, request, url_for
from flask.blueprints import BlueprintSetupState
from werkzeug.wrappers import Response as AnyResponse

from llamactl.access.throttle import Throttle
from llamactl.errors import AccessDenied, LlamactlError, PermissionDenied, TooManyRequests
from llamactl.web import browser, services
from llamactl.web.auditing import note
from llamactl.web.auth import remember
from llamactl.web.errors import problem_of

blueprint = Blueprint("login", __name__)

EXTENSION = "llamactl_login"


@dataclass(frozen=True)
class Limits:
    """How many wrong keys are heard from one address, and from all of them together."""

    by_address: Throttle = field(default_factory=Throttle)
    by_all: Throttle = field(default_factory=lambda: Throttle(burst=200, seconds=0.5))

    def count(self, address: str) -> None:
        """Count a wrong key; raises ``TooManyRequests`` where there were too many."""
        for throttle, who in ((self.by_address, address), (self.by_all, "everyone")):
            throttle.check(who)
            throttle.failed(who)


@blueprint.record
def _limit(state: BlueprintSetupState) -> None:
    state.app.extensions[EXTENSION] = Limits()


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
    note(browser.open_session(response).label)
    return response


@blueprint.post("/logout")
def leave() -> AnyResponse:
    """End the session, here and in the browser."""
    response = redirect(url_for("login.form"), 303)
    browser.end_session(response)
    return response


def _check(key: str) -> None:
    # A right key is looked up before anything is counted: nobody can lock its holder out.
    try:
        principal = services().keys.authenticate(key)
    except AccessDenied:
        limits: Limits = current_app.extensions[EXTENSION]
        limits.count(request.remote_addr or "")
        raise
    if not principal.is_management:
        raise PermissionDenied(
            "This key is for inference only", hint="The pages want a management key."
        )
    remember(principal)


def _form(error: LlamactlError | None) -> Response:
    wanted = request.args.get("next")
    configured = bool(services().config.auth.management_keys)
    html = render_template("login.html", error=error, next=wanted, configured=configured)
    page = Response(html, mimetype="text/html")
    if error is not None:
        problem = problem_of(error)
        page.status_code = problem.status
        page.headers.extend(
            {name: value for name, value in problem.headers.items() if name == "Retry-After"}
        )
    return page
