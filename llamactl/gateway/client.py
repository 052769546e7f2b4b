"""The client's end of a request: is it still there, and does it take what it gets?

A WSGI server notices a client that left only when it writes to it, which during a long prefill may
be never. Where the server hands out the connection itself, it can be looked at.
"""

from __future__ import annotations

import contextlib
import select
import socket

#: Seconds that a client may leave its buffers full before it counts as gone.
STALLED_SECONDS = 60.0
#: Bytes that may be written without blocking once a client has room at all.
ROOM = 16 * 1024
# What a system keeps of its own beside even the smallest piece, generously.
_LEAST_PIECE = 2 * 1024
# Tells of a closed connection where unread bytes hide its end; Linux has it, macOS does not.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)
_PROBES = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in {
            "TCP_KEEPIDLE": 20,
            "TCP_KEEPINTVL": 10,
            "TCP_KEEPCNT": 3,
            "TCP_USER_TIMEOUT": int(STALLED_SECONDS * 1000),
        }.items()
        if hasattr(socket, name)
    ),
]


class Client:
    """A client's connection; ``Client(None)`` is one that cannot be looked at."""

    def __init__(self, connection: socket.socket | None) -> None:
        self._socket = connection
        self._pipelining = False
        self._room = 0
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):
                _probe(connection)

    def watch(self, poll: select.poll) -> int | None:
        """Have ``poll`` wake when the client may have left; the descriptor that it then names."""
        if self._socket is None or self._socket.fileno() < 0:
            return None
        poll.register(self._socket.fileno(), _HUNG_UP | (0 if self._pipelining else select.POLLIN))
        return self._socket.fileno()

    def left(self, event: int) -> bool:
        """Whether the client is gone, after ``poll`` woke with ``event``."""
        return bool(event & ~select.POLLIN) or self.gone()

    def gone(self) -> bool:
        """Whether the client has closed its connection."""
        if self._socket is None:
            return False
        try:
            flags = socket.MSG_PEEK | socket.MSG_DONTWAIT
            # The plain method: a TLS socket refuses flags, and its raw bytes tell enough.
            waiting = socket.socket.recv(self._socket, 1, flags)
        except BlockingIOError:
            return False
        except OSError:
            return True
        # Bytes that wait are its next request: its end can no longer be seen behind them.
        self._pipelining = bool(waiting)
        return not waiting

    def takes(self, size: int, seconds: float = STALLED_SECONDS) -> bool:
        """Wait until the client has room for ``size`` more bytes, at most ``ROOM``.

        False if it left or takes nothing.
        """
        if self._socket is None or self._socket.fileno() < 0:
            return self._socket is None
        if self._room < max(size, _LEAST_PIECE):
            poll = select.poll()
            poll.register(self._socket.fileno(), select.POLLOUT)
            ready = poll.poll(seconds * 1000)
            if not ready or ready[0][1] & (select.POLLERR | select.POLLHUP):
                return False
            self._room = ROOM
        # Asking the system for each token would cost as much as writing it.
        self._room -= max(size, _LEAST_PIECE)
        return True

    def hang_up(self) -> None:
        """End the connection once what was written has left.

        The WSGI server would wait for the client's own end before it closes.
        """
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _probe(connection: socket.socket) -> None:
    """Have the system ask a silent client now and then whether it is still there.

    A machine that vanished says nothing: only probes that stay without an answer tell.
    """
    # A kept connection is asked since its first request.
    if not connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        for level, option, value in _PROBES:
            connection.setsockopt(level, option, value)
