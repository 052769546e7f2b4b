"""Whether an instance answers, and whether it is ours.

A server is ready when ``/health`` is 200, our key opens ``/props``, and ``/props`` stays closed
without it. The key is random and known to one process, so a stranger on the port cannot pass for
it: a llama-server without a key lets everybody in, one with another key lets nobody in.
"""

from __future__ import annotations

import socket
import time
from typing import Literal, TypeAlias

from llamactl.instances.bell import readable_of
from llamactl.secret import Secret

Readiness: TypeAlias = Literal["silent", "loading", "foreign", "ready"]

_LONGEST_STATUS_LINE = 4096
_LONGEST_ANSWER = 4 * 1024 * 1024


class Probe:
    """Asks one server. ``interrupt`` is a descriptor whose becoming readable ends every wait."""

    def __init__(self, host: str, port: int, key: Secret, interrupt: int | None = None) -> None:
        self._address = (host, port)
        self._key = key
        self._interrupt = interrupt

    def readiness(self, timeout: float) -> Readiness:
        """What the server says of itself; ``silent`` where nothing or no HTTP answers in time."""
        health = self.status("/health", timeout)
        if health == 503:
            return "loading"
        if health != 200:
            return "silent" if health is None else "foreign"
        with_key = self.status("/props", timeout, with_key=True)
        if with_key is None or with_key == 503:
            return "loading"
        if with_key != 200:
            return "foreign"
        without_key = self.status("/props", timeout)
        if without_key is None:
            return "loading"
        return "ready" if without_key == 401 else "foreign"

    def status(self, path: str, timeout: float, *, with_key: bool = False) -> int | None:
        """The status of one GET, or None when there is none in time or the wait was interrupted."""
        deadline = time.monotonic() + timeout
        try:
            with socket.create_connection(self._address, timeout) as connection:
                connection.sendall(self._request(path, with_key))
                return _status_of(self._first_line(connection, deadline))
        except OSError:
            return None

    def body(self, path: str, timeout: float) -> bytes | None:
        """The body of a 200 to one GET with our key; None for anything else, or when it is late."""
        deadline = time.monotonic() + timeout
        try:
            with socket.create_connection(self._address, timeout) as connection:
                connection.sendall(self._request(path, with_key=True))
                received = self._received(connection, deadline, _LONGEST_ANSWER, until=None)
        except OSError:
            return None
        head, end, body = (received or b"").partition(b"\r\n\r\n")
        whole = end and _status_of(head) == 200 and b"chunked" not in head.lower()
        return body if whole else None

    def _request(self, path: str, with_key: bool) -> bytes:
        host, port = self._address
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close"]
        if with_key:
            lines.append(f"Authorization: Bearer {self._key.reveal()}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _first_line(self, connection: socket.socket, deadline: float) -> bytes:
        return self._received(connection, deadline, _LONGEST_STATUS_LINE, until=b"\n") or b""

    def _received(
        self, connection: socket.socket, deadline: float, longest: int, until: bytes | None
    ) -> bytes | None:
        """What comes until ``until`` or the end; None where that is too late or too long."""
        received = bytearray()
        watched = [connection.fileno(), *([] if self._interrupt is None else [self._interrupt])]
        while until is None or until not in received:
            readable = readable_of(watched, max(0.0, deadline - time.monotonic()))
            if connection.fileno() not in readable or len(received) > longest:
                return None
            block = connection.recv(64 * 1024)
            if not block:
                break
            received += block
        return bytes(received)


def _status_of(line: bytes) -> int | None:
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return None
    return int(words[1])
