"""Who is believed about where a request came from.

A reverse proxy tells the client's address and scheme in ``X-Forwarded-*`` headers, and anyone can
send those. They count when they come from ``server.trusted_proxies``, and are removed otherwise.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from llamactl.config import ServerConfig

TELLING_HEADERS = (
    "HTTP_FORWARDED",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_REAL_IP",
)


class FrontDoor:
    """A WSGI application that puts right what proxies say before the inner one sees it."""

    def __init__(self, app: WSGIApplication, server: ServerConfig) -> None:
        self._app = app
        # One hop, and never the host: what the browser asked for arrives in Host itself.
        self._app_behind_proxy = ProxyFix(app, x_for=1, x_proto=1, x_host=0)
        self._trusted = [
            ipaddress.ip_network(name, strict=False) for name in server.trusted_proxies
        ]
        self._prefix = server.url_prefix
        # A proxy is the peer of all its requests.
        self._is_trusted = functools.lru_cache(maxsize=64)(self._names_trusted)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self._move_prefix(environ)
        if self._is_trusted(environ.get("REMOTE_ADDR", "")):
            return self._app_behind_proxy(environ, start_response)
        for name in TELLING_HEADERS:
            environ.pop(name, None)
        return self._app(environ, start_response)

    def _names_trusted(self, address: str) -> bool:
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(peer, "ipv4_mapped", None)
        return any((mapped or peer) in network for network in self._trusted)

    def _move_prefix(self, environ: WSGIEnvironment) -> None:
        # A proxy may pass the prefix on or have taken it off: both lead to the same pages, and
        # links carry it in either case.
        if not self._prefix:
            return
        path = environ.get("PATH_INFO", "")
        if path == self._prefix or path.startswith(self._prefix + "/"):
            environ["PATH_INFO"] = path[len(self._prefix) :] or "/"
        environ["SCRIPT_NAME"] = self._prefix
