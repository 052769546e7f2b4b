"""One worker's line to the servers that bytes come from.

No credential is ever added here: what a request carries is what the hub's answer said it must.
Neither ``~/.netrc`` nor cookies play a part; the system's proxies do.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import logging
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from requests.utils import (
    DEFAULT_CA_BUNDLE_PATH,
    get_auth_from_url,
    get_environ_proxies,
    select_proxy,
    urldefragauth,
)
from urllib3.connection import HTTPConnection, HTTPSConnection

from llamactl.downloads.splicing import Pipe, SplicedResponse
from llamactl.errors import Interrupted

# At DEBUG it writes down whole addresses, and an address with its signature opens the file.
logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)

_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
#: The line whose request the present thread is making.
_current = threading.local()
_making_tls = threading.Lock()


class Answer:
    """An answer whose body is still to be taken, by ``read`` or, where it can, by ``move``."""

    def __init__(
        self, response: urllib3.BaseHTTPResponse, below: http.client.HTTPResponse | None, pipe: Pipe
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._below = below if isinstance(below, SplicedResponse) else None
        self._pipe = pipe

    @property
    def movable(self) -> bool:
        """Whether ``move`` can be used; once it was, ``read`` must not."""
        return self._below is not None and self._below.spliceable and self._pipe.works

    def read(self, count: int) -> bytes:
        """``count`` bytes of the body, fewer only at its end."""
        return self._response.read(count, decode_content=False)

    def move(self, descriptor: int, offset: int, count: int) -> int:
        """Put ``count`` bytes at ``offset`` of a file, fewer only at the end of the body."""
        assert self._below is not None
        moved = self._below.move(self._pipe, descriptor, offset, count)
        if self._below.isclosed():
            self._response.release_conn()
        return moved

    def close(self) -> None:
        """Give the answer up; its connection serves again only if all of the body was taken."""
        if not self._response.closed:
            self._response.close()


class Downlink:
    """Requests of one thread. ``cut`` and ``close`` may be called from any other."""

    def __init__(self, connect_timeout: float, silence_timeout: float) -> None:
        self._timeout = urllib3.Timeout(connect=connect_timeout, read=silence_timeout)
        self._managers: dict[tuple[str, str], urllib3.PoolManager] = {}
        self._pipe = Pipe()
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        # A connection that ends with its answer forgets its socket while the answer still reads.
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._below: http.client.HTTPResponse | None = None
        self._closed = False

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Ask for ``url``; redirects are not followed.

        Raises urllib3's errors, or ``Interrupted`` after ``close``.
        """
        _current.downlink = self
        self._below = None
        if self._closed:
            raise Interrupted
        response = self._manager(url).request(
            "GET",
            url,
            headers=dict(headers),
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
            timeout=self._timeout,
        )
        return Answer(response, self._below, self._pipe)

    def cut(self) -> None:
        """End whatever this line waits for; its thread sees the end of the connection."""
        with self._lock:
            sockets = {*self._sockets, *(connection.sock for connection in self._connections)}
        for sock in sockets:
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
        self._pipe.close()
        self._below = None

    def connecting(self, connection: HTTPConnection) -> None:
        """Note the connection that is being made."""
        with self._lock:
            self._connections.add(connection)

    def connected(self) -> None:
        """Stop here if ``close`` came while there was no socket to shut yet."""
        if self._closed:
            raise Interrupted

    def answering(self, below: http.client.HTTPResponse, sock: socket.socket) -> None:
        """Note the answer that is being waited for."""
        self._below = below
        with self._lock:
            self._sockets.add(sock)

    def _manager(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        host = parts.scheme, parts.netloc
        if host not in self._managers:
            proxy = select_proxy(url, get_environ_proxies(url)) or ""
            encrypted = host[0] != "http" or proxy.startswith("https:")
            self._managers[host] = _make_manager(proxy, encrypted)
        return self._managers[host]


class _PlainResponse(SplicedResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        _current.downlink.answering(self, sock)


class _EncryptedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        _current.downlink.answering(self, sock)


class _Plain(HTTPConnection):
    response_class = _PlainResponse

    def connect(self) -> None:
        _current.downlink.connecting(self)
        super().connect()
        _current.downlink.connected()


class _Encrypted(HTTPSConnection):
    response_class = _EncryptedResponse

    def connect(self) -> None:
        _current.downlink.connecting(self)
        super().connect()
        _current.downlink.connected()


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _EncryptedPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Encrypted


def _make_manager(proxy: str, encrypted: bool) -> urllib3.PoolManager:
    options: dict[str, Any] = {"num_pools": 4, "maxsize": 1}
    if encrypted:
        with _making_tls:
            options["ssl_context"] = _tls(_authorities())
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
