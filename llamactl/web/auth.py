"""Who is asking: a key in a header, never a cookie and never the address.

``Authorization: Bearer`` counts before ``X-API-Key``. The pages' session cookie opens nothing here,
so no web page can act through a browser that is logged in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from flask import current_app, g, request

from llamactl.access.principal import ANYONE, Principal
from llamactl.access.throttle import Throttle
from llamactl.errors import InvalidKey, InvalidRequest, MissingKey, PermissionDenied
from llamactl.web import services
from llamactl.web.browser import SAFE_METHODS, comes_from_our_pages

P = ParamSpec("P")
R = TypeVar("R")

QUERY_NAMES = ("api_key", "api-key", "apikey", "access_token", "key", "token")
ANYONE_MANAGING = Principal("management", "anyone")
HOW = "Send Authorization: Bearer KEY, or X-API-Key: KEY."


def presented_key() -> str | None:
    """The key that the request's headers carry, if any; a key in the query is refused."""
    for name in QUERY_NAMES if request.query_string else ():
        if name in request.args:
            raise InvalidRequest(
                "A key in the address ends up in logs and histories and is not accepted",
                hint=HOW,
                field=name,
            )
    authorization = request.headers.get("Authorization")
    if authorization is None:
        return request.headers.get("X-API-Key", "").strip() or None
    scheme, _, key = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise InvalidKey("The Authorization header must be of the form: Bearer KEY")
    return key.strip()


def authenticate_management() -> Principal:
    """The holder of a management key, remembered as this request's ``principal()``.

    Raises ``MissingKey``, ``InvalidKey``, or ``PermissionDenied`` for an inference key. Where
    ``auth.require_management_auth`` is off, everyone is let in.
    """
    key = presented_key()
    if not services().config.auth.require_management_auth:
        refuse_foreign_pages()
        return remember(ANYONE_MANAGING)
    found = remember(_authenticated(key))
    if not found.is_management:
        raise PermissionDenied(
            "This key is for inference only", hint="This address wants a management key."
        )
    return found


def authenticate_inference() -> Principal:
    """The holder of a key of either kind, remembered as this request's ``principal()``.

    Raises ``MissingKey`` or ``InvalidKey``. Where ``auth.require_inference_auth`` is off, everyone
    is let in, with or without a key.
    """
    key = presented_key()
    if not services().config.auth.require_inference_auth:
        return remember(ANYONE)
    return remember(_authenticated(key))


def management_required(view: Callable[P, R]) -> Callable[P, R]:
    """Let only the holder of a management key reach the view."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        authenticate_management()
        return view(*args, **kwargs)

    return guarded


def principal() -> Principal:
    """Whoever this request was let in as."""
    return cast(Principal, g.llamactl_principal)


def known_principal() -> Principal | None:
    """Whoever asks, let in or not; None where no key, or none that is known, was shown."""
    return cast("Principal | None", g.get("llamactl_principal"))


def _authenticated(key: str | None) -> Principal:
    if key is None:
        raise MissingKey("This address wants a key", hint=HOW)
    try:
        return services().keys.authenticate(key)
    except InvalidKey:
        address = request.remote_addr or ""
        throttle().check(address)
        throttle().failed(address)
        raise


def throttle() -> Throttle:
    """The failures of this application's callers, by address; logins count there too."""
    known: Throttle = current_app.extensions.setdefault("llamactl.throttle", Throttle())
    return known


def remember(found: Principal) -> Principal:
    """Make this the request's ``principal()``."""
    g.llamactl_principal = found
    return found


def refuse_foreign_pages() -> None:
    """Raise ``PermissionDenied`` for an unsafe request that another site's page makes."""
    # Without keys, only the browser's own word tells our pages and programs from strangers' pages.
    if request.method not in SAFE_METHODS and not comes_from_our_pages():
        raise PermissionDenied("A page of another site may not change anything here")
