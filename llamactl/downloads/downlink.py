"""One worker's line to the servers that bytes come from.

No credential is ever added here: what a request carries is what the hub's answer said it must.
Neither ``~/.netrc`` nor cookies play a part; the system's proxies do.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3
from requests.utils import (
    DEFAULT_CA_BUNDLE_PATH,
    get_auth_from_url,
    get_environ_proxies,
    select_proxy,
    urldefragauth,
)
from urllib3.connection import HTTPConnection, HTTPSConnection

from llamactl.errors import Interrupted

_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_current = threading.local()


class Downlink:
    """Requests of one thread. ``cut`` and ``close`` may be called from any other."""

    def __init__(self, connect_timeout: float, silence_timeout: float) -> None:
        self._timeout = urllib3.Timeout(connect=connect_timeout, read=silence_timeout)
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        self._closed = False

    def get(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """Ask for ``url``; the body is still to be read. Redirects are not followed.

        Raises urllib3's errors, or ``Interrupted`` after ``close``.
        """
        _current.downlink = self
        if self._closed:
            raise Interrupted
        return self._manager(url).request(
            "GET",
            url,
            headers=dict(headers),
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
            timeout=self._timeout,
        )

    def cut(self) -> None:
        """End whatever this line waits for; its thread sees the end of the connection."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            sock = connection.sock
            if isinstance(sock, socket.socket):
                with contextlib.suppress(OSError):  # it may be closed already
                    # Not SSLSocket's own shutdown, which pulls the TLS state from under a reader.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """End what is under way and everything later."""
        self._closed = True
        self.cut()

    def release(self) -> None:
        """Close the idle connections; called by the line's own thread at its end."""
        for manager in self._managers.values():
            manager.clear()

    def opening(self, connection: HTTPConnection) -> None:
        """Note the connection that is being made."""
        with self._lock:
            self._connections.add(connection)

    def opened(self) -> None:
        """Stop here if ``close`` came while there was no socket to shut yet."""
        if self._closed:
            raise Interrupted

    def _manager(self, url: str) -> urllib3.PoolManager:
        proxy = select_proxy(url, get_environ_proxies(url)) or ""
        if proxy not in self._managers:
            self._managers[proxy] = _make_manager(proxy)
        return self._managers[proxy]


class _Plain(HTTPConnection):
    def connect(self) -> None:
        _current.downlink.opening(self)
        super().connect()
        _current.downlink.opened()


class _Encrypted(HTTPSConnection):
    def connect(self) -> None:
        _current.downlink.opening(self)
        super().connect()
        _current.downlink.opened()


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _EncryptedPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Encrypted


def _make_manager(proxy: str) -> urllib3.PoolManager:
    options: dict[str, Any] = {"num_pools": 4, "maxsize": 1, "ssl_context": _tls(_authorities())}
    manager: urllib3.PoolManager
    if not proxy:
        manager = urllib3.PoolManager(**options)
    elif proxy.lower().startswith("socks"):
        from urllib3.contrib.socks import SOCKSProxyManager  # an extra that few have installed

        return SOCKSProxyManager(proxy, **options)
    else:
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        user, password = get_auth_from_url(proxy)
        credentials = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}") if user else {}
        manager = urllib3.ProxyManager(urldefragauth(proxy), proxy_headers=credentials, **options)
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _EncryptedPool}
    return manager


def _authorities() -> str:
    named = (os.environ.get(name) for name in _CERTIFICATES)
    return next((path for path in named if path), DEFAULT_CA_BUNDLE_PATH)


@functools.cache
def _tls(authorities: str) -> ssl.SSLContext:
    """One context for all lines: reading the authorities' file costs more than a handshake."""
    if Path(authorities).is_dir():
        return ssl.create_default_context(capath=authorities)
    return ssl.create_default_context(cafile=authorities)
