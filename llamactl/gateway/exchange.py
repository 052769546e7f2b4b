"""One request to an instance over a connection of its own, which anyone may cut.

Every wait is on both sockets: an instance that is silent does not hide a client that left. Only the
thread of the request reads, writes and closes; other threads ``cut``, which wakes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable

from llamactl.errors import UpstreamGone
from llamactl.gateway.client import ROOM, Client
from llamactl.gateway.headers import Headers
from llamactl.gateway.wire import Framing, Head, Malformed, framing_of, request_head, split_head

CONNECT_SECONDS = 3.0
# macOS has no such flag.
_NONBLOCKING = getattr(socket, "SOCK_NONBLOCK", 0)
#: The first byte of Linux's struct tcp_info, for a connection that stands.
_ESTABLISHED = 1


def _nothing() -> None:
    """Nobody has to be told."""


class ClientGone(Exception):
    """The client left, or takes nothing any more; nobody is there to be told."""


class Cut(Exception):
    """Another thread ended this request."""


class NotListening(UpstreamGone):
    """The instance took no connection, so nothing of the request has reached it."""


class NotAnswered(UpstreamGone):
    """The instance closed the connection without a byte of an answer."""


class Exchange:
    """A request and its answer. Not for two threads, but for ``cut``.

    Every method may raise ``ClientGone``, ``Cut`` or ``UpstreamGone``. ``before_waiting`` is called
    each time before the request has to wait, until it has been sent.
    """

    def __init__(
        self,
        host: str,
        port: int,
        client: Client,
        read_timeout: float,
        before_waiting: Callable[[], None] = _nothing,
    ) -> None:
        self._client = client
        self._before_waiting = before_waiting
        self._read_timeout = read_timeout
        self._cut = False
        self._framing: Framing | None = None
        self._waiting = b""
        self._events = 0
        self._lock = threading.Lock()
        self.length: int | None = None
        self._socket = _connected(host, port, before_waiting)
        self._poll = select.poll()
        self._client_fd = client.watch(self._poll)

    def send(self, method: str, target: str, headers: Headers, body: bytes) -> Head:
        """Send the request and wait for the answer's head, however long the prefill takes."""
        self._write(request_head(method, target, headers) + body)
        self._before_waiting()
        received = b""
        try:
            while (split := split_head(received)) is None:
                data = self._receive()
                if not data:
                    gone = UpstreamGone if received else NotAnswered
                    raise gone("The instance closed the connection before it answered")
                received += data
            head, rest = split
            self._framing, self.length = framing_of(method, head)
            self._waiting = self._framing.feed(rest)
        except Malformed as error:
            raise UpstreamGone(f"The instance sent a broken answer: {error}") from error
        return head

    def ready(self) -> bytes:
        """The part of the body that came with the head; may be empty."""
        waiting, self._waiting = self._waiting, b""
        return waiting

    def read(self) -> bytes:
        """The next part of the body as it comes; empty at its clean end."""
        framing = self._framing
        if framing is None:
            return b""
        while not framing.done:
            data = self._receive()
            if not data:
                if framing.whole_at_end():
                    return b""
                raise UpstreamGone("The instance stopped in the middle of its answer")
            try:
                payload = framing.feed(data)
            except Malformed as error:
                raise UpstreamGone(f"The instance sent a broken answer: {error}") from error
            if payload:
                return payload
        return b""

    def rest(self) -> bytes:
        """After a cut, the next part of what had come by then; empty when there is no more."""
        framing = self._framing
        with contextlib.suppress(OSError, Malformed):
            while framing is not None and (data := self._socket.recv(ROOM)):
                if payload := framing.feed(data):
                    return payload
        return b""

    def cut(self) -> None:
        """End the exchange from any thread; whoever waits in it gets ``Cut``."""
        self._cut = True
        # Under the lock, so that the descriptor is not another connection's by now.
        with self._lock, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Drop the connection, which ends a generation that still runs."""
        with self._lock:
            self._socket.close()

    def _write(self, data: bytes) -> None:
        # A connection that is new has room, mostly for all of it.
        view = memoryview(data)
        while True:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                pass
            except OSError:
                return
            if not view:
                return
            self._before_waiting()
            if self._wait(select.POLLIN | select.POLLOUT) & ~select.POLLOUT:
                # It answers before it has read everything, or it is gone: its answer tells.
                return

    def _receive(self) -> bytes:
        while True:
            self._wait(select.POLLIN)
            try:
                data = self._socket.recv(ROOM)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            # A cut looks like the instance's end, and is none.
            self._raise_if_cut()
            return data

    def _wait(self, events: int) -> int:
        """Wait until the instance's socket is ready for one of ``events``; which it is."""
        mine = self._socket.fileno()
        if events != self._events:
            self._poll.register(mine, events)
            self._events = events
        deadline = time.monotonic() + self._read_timeout
        while True:
            self._raise_if_cut()
            left = deadline - time.monotonic()
            if left <= 0:
                raise UpstreamGone(f"The instance sent nothing for {self._read_timeout:g} seconds")
            ready = dict(self._poll.poll(left * 1000))
            if self._client_fd in ready:
                if self._client.left(ready[self._client_fd]):
                    raise ClientGone
                self._client_fd = self._client.watch(self._poll)
            if mine in ready:
                return ready[mine]

    def _raise_if_cut(self) -> None:
        if self._cut:
            raise Cut


def _connected(host: str, port: int, before_waiting: Callable[[], None]) -> socket.socket:
    """A connection that never blocks. Raises ``NotListening``.

    ``host`` is an address: a name would be looked up first, which costs as much as the rest.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | _NONBLOCKING)
    try:
        if not _NONBLOCKING:
            connection.setblocking(False)
        number = connection.connect_ex((host, port))
        if number == errno.EINPROGRESS:
            number = 0
            if not _is_established(connection):
                before_waiting()
                number = _outcome(connection)
        if number:
            raise NotListening(f"The instance takes no connection: {os.strerror(number)}")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_established(connection: socket.socket) -> bool:
    """Whether the connection stands already, as it mostly does within one machine.

    Asked without letting go of the interpreter's lock; false where Linux's way to ask is missing.
    """
    if not hasattr(socket, "TCP_INFO"):
        return False
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED


def _outcome(connection: socket.socket) -> int:
    """The error number with which connecting ended, 0 for none."""
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    if not poll.poll(CONNECT_SECONDS * 1000):
        return errno.ETIMEDOUT
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
