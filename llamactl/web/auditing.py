"""The one place that writes the audit: after each request that manages, and each that was refused.

What is written is method and path, who asked, and what the request named: a few fields by value,
the others by name only. No key, no option's value and no text of a prompt is among them. Inference
is not written down, whoever asks for it; a key that is refused there is.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterator, Mapping

from flask import Flask, Response, g, request

from llamactl.gateway.paths import native_target
from llamactl.secret import MASK
from llamactl.web import browser, services
from llamactl.web.auth import known_principal
from llamactl.web.browser import SAFE_METHODS
from llamactl.web.jsonbody import known_body
from llamactl.web.security import is_keyed
from llamactl.web.texts import plain

log = logging.getLogger(__name__)

INFERENCE = ("/v1/", "/llama-cpp/")
REFUSED = frozenset({401, 403, 429})
#: Fields whose value says what the request is about, and opens nothing.
SHOWN = frozenset(
    {
        "bandwidth",
        "bandwidth_limit",
        "expires_at",
        "instance_ids",
        "max_concurrent",
        "name",
        "permission_mode",
        "repair",
        "repo",
        "tag",
    }
)
HIDDEN = frozenset({"csrf_token", "back", "key", "newest", "username"})
# As our fields are spelled: a key that someone sends in the place of a name is not kept.
_NAME = re.compile(r"[a-z_]{1,30}")
#: Our keys of both kinds, and the hub's tokens: far longer than what stands for them elsewhere.
_KEY = re.compile(r"((?:llcm?|hf)_[\w-]{2})[\w-]{28,}", re.ASCII)
_LONGEST_VALUE = 150


def install(app: Flask) -> None:
    """Have every answer of the application looked at."""
    app.after_request(write)


def note(text: str) -> None:
    """Have this request's row say what the request itself cannot: the name of what it made."""
    g.audit_note = text


def changes_nothing() -> None:
    """Leave this request out, which is sent like a change and only looks."""
    g.audit_nothing = True


def write(response: Response) -> Response:
    """Write the request down, where it managed something or was refused."""
    refusal = response.status_code in REFUSED
    looks = request.method in SAFE_METHODS or "audit_nothing" in g
    if not refusal and (looks or request.path.startswith(INFERENCE)):
        return response
    manager = _manager()
    what = f"{request.method} {_line(request.path)}"
    source = request.remote_addr or ""
    try:
        if manager is None:
            if refusal and _tried():
                services().audit.refused(_asker(), what, response.status_code, source)
        elif request.method not in SAFE_METHODS and not _is_inference():
            services().audit.done(manager, what, _about(), response.status_code, source)
    except (sqlite3.Error, RuntimeError) as error:
        # What was asked for is done by now, so the answer stands.
        log.error("%s by %s could not be written to the audit: %s", what, manager, error)
    return response


def _manager() -> str | None:
    """Who manages by this request; None for whoever has no right to."""
    found = known_principal()
    if found is not None:
        return found.label if found.is_management else None
    if not browser.form_is_ours():
        return None
    session = browser.acting_session()
    if session is not None:
        return session.label
    return None if browser.needs_login() else "anyone"


def _asker() -> str:
    found = known_principal()
    return found.label if found else "unknown"


def _tried() -> bool:
    """Whether it was a try at a lock, and not a client without a key or one at its limit."""
    if known_principal() is not None:
        return not request.path.startswith(INFERENCE)
    showed_key = "Authorization" in request.headers or "X-API-Key" in request.headers
    return showed_key or (request.method not in SAFE_METHODS and not is_keyed())


def _is_inference() -> bool:
    if request.path.startswith(INFERENCE):
        return True
    rest = (request.view_args or {}).get("rest")
    return rest is not None and native_target(request.method, rest) is not None


def _about() -> str:
    typed = request.form.to_dict(flat=False) if browser.form_is_ours() else known_body()
    named = [*_named(request.args.to_dict()), *_named(typed)]
    return "; ".join([g.audit_note, *named] if "audit_note" in g else named)


def _named(fields: Mapping[str, object]) -> Iterator[str]:
    for name, value in fields.items():
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if name in HIDDEN or value in (None, "", []) or not _NAME.fullmatch(name):
            continue
        yield f"{name}={_line(str(value))[:_LONGEST_VALUE]}" if name in SHOWN else name


def _line(text: str) -> str:
    """What somebody sent, as one line; a whole key that stands in the place of something else is
    told by its beginning."""
    return _KEY.sub(rf"\1{MASK}", plain(text).replace("\n", " "))
