"""gunicorn's gthread worker, in which a slow client costs nobody else anything.

gunicorn gives a connection to a thread that then waits for the request, and waits in its own loop,
up to two seconds, for each client whose connection it closes: a few that are slow on purpose stand
for everybody. Here the loop takes what has come, and a thread begins once it need not wait.
"""

from __future__ import annotations

import errno
import fcntl
import io
import re
import select
import socket
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import TConn, ThreadWorker

#: Seconds for a request to come: its headers, and its body unless that is large.
COMING_SECONDS = 20.0
#: As many bytes of headers as nginx takes.
LARGEST_HEAD = 64 * 1024
#: A body of more bytes, or of an unknown number, is received by the thread that answers it.
LARGEST_BODY = 64 * 1024
#: Seconds that a thread stays with a client that may ask again at once.
STAYING_SECONDS = 0.05
#: Threads that are at rest while others stay: whoever comes meanwhile finds one.
AT_REST = 16
#: Seconds, and bytes, for a client to close its end once its connection is closed here.
LEAVING_SECONDS = 2.0
MOST_AFTER_THE_END = 64 * 1024
#: Bytes of its last answers that a client may leave untaken when it asks again.
MOST_UNTAKEN = 64 * 1024
_PIECE = 16 * 1024
#: Seconds for the loop to wait where the system has no room and nobody can be sent away.
_FULL_SECONDS = 0.05
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: What accept(2) says of a client that is gone again, or that a firewall forbids.
_NOBODY = frozenset(
    {
        errno.EAGAIN,
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    }
)
_TOO_LARGE = b"\r\n".join(
    (
        b"HTTP/1.1 431 Request Header Fields Too Large",
        b"Connection: close",
        b"Content-Length: 0",
        b"\r\n",
    )
)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*0*([0-9]{1,18})[ \t]*(?:\r\n|\Z)")
_UNKNOWN_LENGTH = (b"\r\ntransfer-encoding", b"\r\nexpect")


class Connection(TConn):  # type: ignore[misc]  # gunicorn carries no types
    """A client's connection, with what has come of its next request."""

    def __init__(self, worker: RequestWorker, sock: socket.socket, client: Any, server: Any):
        super().__init__(worker.cfg, sock, client, server)
        self._worker = worker
        self._needed: int | None = None
        self.coming = bytearray()
        #: Until when its request has to be there, or its client gone, by the monotonic clock.
        self.until = 0.0
        #: Whether the request was there to its last byte before its thread began.
        self.came_whole = False
        self.after_the_end = 0

    def begin(self) -> None:
        """Expect a request, of which a part may have come together with the last one."""
        self.coming.clear()
        self._needed = None
        self.until = time.monotonic() + COMING_SECONDS
        if self.parser is not None:
            self.coming += self.parser.unreader.buf.getvalue()
            self.parser.unreader.buf = io.BytesIO()

    def has_come(self) -> bool:
        """Whether a thread can begin with the request."""
        if self._needed is None:
            end = self.coming.find(b"\r\n\r\n")
            if end < 0:
                return False
            body = _body_to_wait_for(bytes(self.coming[:end]).lower())
            self.came_whole = body is not None
            self._needed = end + 4 + (body or 0)
        return len(self.coming) >= self._needed

    def is_too_large(self) -> bool:
        """Whether its headers have no end where they should."""
        return self._needed is None and len(self.coming) > LARGEST_HEAD

    def take(self) -> bool:
        """Take what has come, without waiting for more; false at the client's end."""
        try:
            piece = self.sock.recv(_PIECE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            piece = b""
        self.coming += piece
        return bool(piece)

    def is_readable_within(self, seconds: float) -> bool:
        """Whether the client sends something, or leaves, within so many seconds."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def takes_answers(self) -> bool:
        """Whether its client receives what it is sent, so that one more answer can be written."""
        return _untaken(self.sock) <= MOST_UNTAKEN

    def hand_to_parser(self) -> None:
        """Let gunicorn's parser find what has come, as if it had received it itself."""
        self.init()
        self.data_ready = True
        self.parser.unreader.unread(bytes(self.coming))
        self.coming.clear()

    def close(self, graceful: bool = False) -> None:
        """Close it; gracefully means that its client may still read what was sent."""
        if graceful:
            self._worker.see_off(self)
        else:
            super().close()


def _body_to_wait_for(head: bytes) -> int | None:
    """The size of a body that is worth waiting for; None where a thread has to receive it."""
    if any(name in head for name in _UNKNOWN_LENGTH):
        return None
    length = _LENGTH.search(head)
    if length is None:
        return None if b"\r\ncontent-length" in head else 0
    size = int(length[1])
    return size if size <= LARGEST_BODY else None


def _has_all_of_the_body(conn: Connection) -> bool:
    """Whether the rest of a body that nobody wanted is there; gunicorn gives it five seconds."""
    try:
        return bool(conn.parser.finish_body(time.monotonic() + 0.01))
    except ParseException:
        # It has been answered: another answer would be taken for that of the next request.
        return False


def _untaken(sock: socket.socket) -> int:
    """Bytes that were sent and not yet received; 0 where the system does not tell."""
    with suppress(OSError):
        told = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(told, sys.byteorder)
    return 0


class RequestWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn carries no types
    """The worker. All of this runs in the thread of its loop, but what ``handle`` calls."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        # Each in the order of its deadlines.
        self._coming: dict[Connection, None] = {}
        self._leaving: dict[Connection, None] = {}

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection; where there is no room, whoever has waited longest makes some."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in _FULL:
                if not self._make_room():
                    time.sleep(_FULL_SECONDS)
            elif error.errno not in _NOBODY:
                raise
            return
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self._make_room()
        self.enqueue_req(Connection(self, client, address, listener.getsockname()))

    def enqueue_req(self, conn: Connection) -> None:
        """Have the connection's next request answered, once it is there."""
        if self.cfg.is_ssl:
            super().enqueue_req(conn)  # What comes cannot be read here.
            return
        conn.begin()
        step = self._step(conn)
        if step is None:
            self._coming[conn] = None
            self.poller.register(conn.sock, EVENT_READ, partial(self._more_came, conn))
        else:
            step(conn)

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        """Expect the next request of a connection that was kept."""
        # It may have been closed for a newcomer since the system told of it.
        if client.fileno() >= 0:
            super().on_client_socket_readable(conn, client)

    def murder_pending(self) -> None:
        """Close what was waited for long enough; gunicorn calls it in each round of its loop."""
        super().murder_pending()  # Those of TLS that were silent.
        now = time.monotonic()
        for waiting in (self._coming, self._leaving):
            while waiting and (conn := next(iter(waiting))).until <= now:
                self._forget(conn)
                self._drop(conn)
        if not self.alive:
            for conn in [each for each in self._coming if not each.coming]:
                self._forget(conn)
                self._drop(conn)

    def handle(self, conn: Connection) -> Any:
        """Answer a request, and those that follow within a moment of it.

        Each way through the loop and back to a thread costs as much as a third of what a request
        costs that goes to an instance.
        """
        kept = super().handle(conn)
        while kept is True and self._asks_again(conn):
            kept = super().handle(conn)
        return kept

    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Answer a request; whether the connection can take another one."""
        kept = super().handle_request(req, conn)
        return bool(kept) and (conn.came_whole or _has_all_of_the_body(conn))

    def _asks_again(self, conn: Connection) -> bool:
        """Whether the next request is there; what has come of it otherwise is left to the loop."""
        if not self.alive or self.cfg.is_ssl or self.tpool.at_rest() <= AT_REST:
            return False
        conn.begin()
        if not conn.has_come() and conn.is_readable_within(STAYING_SECONDS):
            conn.take()
        asks = conn.has_come() and conn.takes_answers()
        conn.hand_to_parser()
        return asks

    def see_off(self, conn: Connection) -> None:
        """Close a connection once its client has, so that what was sent to it is not lost."""
        self.nr_conns += 1  # gunicorn has counted it out.
        with suppress(OSError):
            conn.sock.shutdown(socket.SHUT_WR)
        if self._has_left(conn):
            self._drop(conn)
            return
        conn.until = time.monotonic() + LEAVING_SECONDS
        self._leaving[conn] = None
        self.poller.register(conn.sock, EVENT_READ, partial(self._may_have_left, conn))

    def _step(self, conn: Connection) -> Callable[[Connection], None] | None:
        """Receive what is there; what to do with the connection, or None to wait for more."""
        ended = False
        if not conn.has_come():
            ended = not conn.take()
        if conn.has_come() or (ended and conn.coming):
            return self._answer  # The parser tells what is wrong with half a request.
        if ended:
            return self._drop
        return self._refuse if conn.is_too_large() else None

    def _more_came(self, conn: Connection, _sock: Any) -> None:
        if conn in self._coming and (step := self._step(conn)):
            self._forget(conn)
            step(conn)

    def _answer(self, conn: Connection) -> None:
        if conn.parser is not None and not conn.takes_answers():
            # Its next answer would have a thread wait until it takes the last ones.
            self._drop(conn)
            return
        conn.hand_to_parser()
        super().enqueue_req(conn)

    def _refuse(self, conn: Connection) -> None:
        with suppress(OSError):
            conn.sock.send(_TOO_LARGE, socket.MSG_DONTWAIT)
        self.nr_conns -= 1
        self.see_off(conn)

    def _has_left(self, conn: Connection) -> bool:
        try:
            piece = conn.sock.recv(_PIECE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        conn.after_the_end += len(piece)
        return not piece or conn.after_the_end > MOST_AFTER_THE_END

    def _may_have_left(self, conn: Connection, _sock: Any) -> None:
        if conn in self._leaving and self._has_left(conn):
            self._forget(conn)
            self._drop(conn)

    def _make_room(self) -> bool:
        """Close the connection that has waited longest; whether there was one."""
        waiting = [next(iter(each)) for each in (self._leaving, self._coming) if each]
        idle = self.keepalived_conns[0] if self.keepalived_conns else None
        if waiting and (idle is None or waiting[0].until <= idle.timeout):
            self._forget(waiting[0])
            self._drop(waiting[0])
        elif idle is not None:
            self.poller.unregister(idle.sock)
            self.keepalived_conns.popleft()
            self._drop(idle)
        return bool(waiting) or idle is not None

    def _forget(self, conn: Connection) -> None:
        self._coming.pop(conn, None)
        self._leaving.pop(conn, None)
        self.poller.unregister(conn.sock)

    def _drop(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()
