"""The browser behind a page request: its session, its cookies, the token that its forms carry.

A session opens pages only; ``/api`` and ``/v1`` never look at a cookie. A browser without a session
(at the login, or where ``auth.require_management_auth`` is off) has a token of its own in a cookie,
so that its forms are told from a stranger's too.
"""

from __future__ import annotations

import hmac
import secrets
from typing import cast

from flask import Response, current_app, g, redirect, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from llamactl.access.sessions import ABSOLUTE_SECONDS, Session
from llamactl.web import services

LOGIN = "login.form"
HOME = "pages.models.index"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LONGEST_TOKEN = 128


def comes_from_our_pages() -> bool:
    """Whether a page of ours asks, or none at all: a program, a person who typed the address."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in {"same-origin", "none"}
    # Browsers leave Sec-Fetch-Site out over plain http from another machine; Origin is there.
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2] == request.host


def session() -> Session | None:
    """The open session of this request's cookie."""
    if "browser_session" not in g:
        g.browser_session = services().sessions.find(request.cookies.get(_cookie_name("session")))
    return cast("Session | None", g.browser_session)


def acting_session() -> Session | None:
    """The session that this request acts, or acted until it was ended, in the name of."""
    return cast("Session | None", g.get("ended_session")) or session()


def needs_login() -> bool:
    """Whether this browser must log in before it sees a page."""
    return services().config.auth.require_management_auth and session() is None


def to_login() -> AnyResponse:
    """Send the browser to the login, and from there back to the page it asked for."""
    if "HX-Request" in request.headers:
        # htmx would put the login into a corner of the page; this makes the whole page go there.
        return Response(status=401, headers={"HX-Redirect": url_for(LOGIN)})
    wanted = request.path if request.method == "GET" else None
    return redirect(url_for(LOGIN, next=wanted), 303)


def page_after_login(wanted: str | None) -> str:
    """The address of the page that was asked for: one of ours, built from the URL map, or home.

    What was asked for is matched, never redirected to as it is: ``//evil`` looks like a path too.
    """
    adapter = current_app.create_url_adapter(request)
    if adapter is None or not wanted:
        return url_for(HOME)
    try:
        endpoint, arguments = adapter.match(wanted, method="GET")
    except HTTPException:
        return url_for(HOME)
    return url_for(endpoint, **arguments) if endpoint.startswith("pages.") else url_for(HOME)


def csrf_token() -> str:
    """The token for this page's forms."""
    found = session()
    return found.csrf if found else _guest_token()


def csrf_matches(presented: str | None) -> bool:
    """Whether a form carries the token that this browser was given."""
    found = session()
    if found is not None:
        return found.csrf_matches(presented)
    known = request.cookies.get(_cookie_name("guest"), "")
    return bool(known) and hmac.compare_digest(known.encode(), (presented or "").encode())


def trust_form() -> None:
    """Remember that this request is a form of ours, sent by the browser that was given it."""
    g.form_is_ours = True


def form_is_ours() -> bool:
    """Whether ``trust_form`` was called for this request."""
    return bool(g.get("form_is_ours"))


def open_session(response: AnyResponse) -> Session:
    """Give the browser a session of its own; one that it had before ends."""
    end_session(response)
    cookie, opened = services().sessions.create()
    _set_cookie(response, "session", cookie.reveal())
    g.browser_session = opened
    return opened


def end_session(response: AnyResponse) -> None:
    """End the browser's session here and forget its cookie there."""
    name = _cookie_name("session")
    g.ended_session = session()
    services().sessions.end(request.cookies.get(name))
    response.delete_cookie(name, path=_cookie_path(), secure=request.is_secure, httponly=True)
    g.browser_session = None


def keep_guest_token(response: Response) -> Response:
    """Have the browser keep the guest token that this answer's form carries, if it is new."""
    token = g.get("new_guest_token")
    if token:
        _set_cookie(response, "guest", token)
    return response


def _guest_token() -> str:
    kept = request.cookies.get(_cookie_name("guest"), "")
    if 32 <= len(kept) <= _LONGEST_TOKEN and kept.isascii():
        return kept
    if "new_guest_token" not in g:
        g.new_guest_token = secrets.token_urlsafe(32)
    return cast(str, g.new_guest_token)


def _set_cookie(response: AnyResponse, kind: str, value: str) -> None:
    response.set_cookie(
        _cookie_name(kind),
        value,
        max_age=int(ABSOLUTE_SECONDS),
        path=_cookie_path(),
        secure=request.is_secure,
        httponly=True,
        samesite="Strict",
    )


def _cookie_name(kind: str) -> str:
    # Browsers do not tell ports apart: without the port in its name, the cookie of a second
    # llamactl on this machine would take the place of the first one's.
    port = request.host.rpartition("]")[2].partition(":")[2]
    prefix = "__Host-" if request.is_secure else ""
    return f"{prefix}llamactl-{kind}" + (f"-{port}" if port.isdigit() else "")


def _cookie_path() -> str:
    return "/" if request.is_secure else request.script_root or "/"
