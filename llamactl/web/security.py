"""What the web floor refuses before any view runs, and what every answer tells the browser.

A page of another site must not be able to act through the browser of someone who is logged in: not
by another name for this machine (the Host header is checked), not by a form of its own (every
unsafe page request carries its session's token and comes from our own origin), not by a frame or a
script (the content policy allows neither).
"""

from __future__ import annotations

import functools
import ipaddress
import re

from flask import Flask, Response, request
from werkzeug.exceptions import SecurityError
from werkzeug.wrappers import Response as AnyResponse

from llamactl.config import Config
from llamactl.errors import PermissionDenied
from llamactl.web import browser, services
from llamactl.web.browser import SAFE_METHODS
from llamactl.web.proxies import FrontDoor
from llamactl.web.refusals import take_rest

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: Here a key in a header decides, and no cookie counts: another site's page has no such key.
KEYED_PREFIXES = ("/api", "/v1", "/llama-cpp")
_BELOW_KEYED = tuple(prefix + "/" for prefix in KEYED_PREFIXES)
LARGEST_FORM = 1 << 20
#: The login is a small form; the web server has all of such a one before a thread begins with it.
LARGEST_FORM_OF_A_STRANGER = 1 << 15
A_YEAR = 365 * 86400

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\\,\s]+)(:[0-9]{1,5})?")


def install(app: Flask, config: Config) -> None:
    """Put the checks before, and the headers on, everything that the application answers."""
    # Wrapping wsgi_app is Flask's documented way; to mypy it is a method that is overwritten.
    app.wsgi_app = FrontDoor(app.wsgi_app, config.server)  # type: ignore[method-assign]
    app.before_request(refuse_strange_host)
    app.before_request(answer_preflight)
    app.before_request(refuse_forged_form)
    app.after_request(harden)
    app.after_request(allow_origin)
    app.after_request(browser.keep_guest_token)


def refuse_strange_host() -> None:
    """Raise ``SecurityError`` (400) unless the Host header is a name of this server.

    Without this, a page whose own name is made to resolve to this machine would be same-origin
    with it. An IP literal has no name to play that trick with.
    """
    match = _HOST.fullmatch(request.environ.get("HTTP_HOST", ""))
    if match is None or not _is_ours(match["name"].lower()):
        raise SecurityError


def answer_preflight() -> Response | None:
    """Answer a browser that asks whether an allowed origin's page may call ``/v1``."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return None
    if not _allowed_origin():
        return None
    answer = Response(status=204)
    answer.headers["Access-Control-Allow-Methods"] = "GET, POST"
    answer.headers["Access-Control-Allow-Headers"] = (
        request.headers.get("Access-Control-Request-Headers") or "authorization, content-type"
    )
    answer.headers["Access-Control-Max-Age"] = "600"
    return answer


def refuse_forged_form() -> AnyResponse | None:
    """Let an unsafe request to a page pass only from a form that this server gave this browser.

    Raises ``PermissionDenied``. Someone whose session has ended is sent to the login instead.
    """
    if request.method in SAFE_METHODS or is_keyed() or request.routing_exception is not None:
        return None
    request.max_content_length = LARGEST_FORM
    if not browser.comes_from_our_pages():
        raise PermissionDenied("A page of another site may not change anything here")
    if browser.needs_login() and not _is_small():
        # Nobody who is not logged in makes a thread wait for a body.
        answer = browser.to_login()
        take_rest(answer)
        return answer
    if browser.csrf_matches(request.form.get("csrf_token")):
        browser.trust_form()
        return None
    if browser.needs_login():
        return browser.to_login()
    raise PermissionDenied(
        "This form is out of date, and nothing was changed",
        hint="Go back, load the page again, and repeat it.",
    )


def harden(response: Response) -> Response:
    """Tell the browser what it may do with this answer."""
    # One look at what is there: this runs for every answer, and `setdefault` looks each time.
    there = {name.lower() for name, _ in response.headers}
    for name, value in HEADERS.items():
        if name.lower() not in there:
            response.headers.add(name, value)
    if request.endpoint == "static":
        if "v" in request.args and response.status_code < 400:
            response.headers["Cache-Control"] = f"public, max-age={A_YEAR}, immutable"
    elif "cache-control" not in there:
        response.headers.add("Cache-Control", "no-store")
    return response


def allow_origin(response: Response) -> Response:
    """Let the pages of ``server.allowed_origins``, and of nobody else, read ``/v1``."""
    if not services().config.server.allowed_origins:
        return response
    if _within("/v1"):
        response.vary.add("Origin")
    origin = _allowed_origin()
    if origin:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "Retry-After, X-Llamactl-Error"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response


def _is_ours(name: str) -> bool:
    if name.startswith("["):
        return _is_address(name[1:-1])
    if name == "localhost" or _is_address(name):
        return True
    server = services().config.server
    return name in {each.lower() for each in (server.host, *server.allowed_hosts)}


@functools.lru_cache(maxsize=64)
def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_small() -> bool:
    # Of neither does the web server have the body before a thread begins with the request.
    if "Transfer-Encoding" in request.headers or "Expect" in request.headers:
        return False
    return (request.content_length or 0) <= LARGEST_FORM_OF_A_STRANGER


def _allowed_origin() -> str | None:
    origin = request.headers.get("Origin")
    if _within("/v1") and origin in services().config.server.allowed_origins:
        return origin
    return None


def is_keyed() -> bool:
    """Whether a key in a header decides at this request's address, and no cookie."""
    path = request.path
    return path in KEYED_PREFIXES or path.startswith(_BELOW_KEYED)


def _within(prefix: str) -> bool:
    return request.path == prefix or request.path.startswith(prefix + "/")
