"""Ports for instances: probed, reserved, never given to two."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable

from llamactl.errors import Unavailable

#: Seconds in which a port that was given back is taken only if no other is free.
QUARANTINE = 5.0


class Ports:
    """The ports from ``first`` to ``last``, on ``host``. Thread-safe."""

    def __init__(self, first: int, last: int, host: str = "127.0.0.1") -> None:
        self._range = range(first, last + 1)
        self._host = host
        self._lock = threading.Lock()
        self._reserved: set[int] = set()
        self._given_back: dict[int, float] = {}
        self._next = first

    def reserve(self, avoid: Iterable[int] = ()) -> int:
        """A port that nobody listens on, ours until ``release``.

        Raises ``Unavailable`` when the whole range is taken.
        """
        unwanted = set(avoid)
        with self._lock:
            candidates = [port for port in self._in_turn() if port not in self._reserved]
            # Those that were just in use come last: something may still connect to them.
            candidates.sort(key=lambda port: port in unwanted or self._in_quarantine(port))
            for port in candidates:
                if _is_free(self._host, port):
                    self._reserved.add(port)
                    self._next = port + 1
                    return port
        first, last = self._range[0], self._range[-1]
        raise Unavailable(
            f"no port of {first} to {last} is free",
            hint="Stop an instance, or widen instances.port_range.",
        )

    def release(self, port: int) -> None:
        """Give the port back. Safe to call twice."""
        with self._lock, contextlib.suppress(KeyError):
            self._reserved.remove(port)
            self._given_back[port] = time.monotonic()

    def _in_turn(self) -> list[int]:
        start = self._next if self._next in self._range else self._range[0]
        offset = start - self._range[0]
        return [*self._range[offset:], *self._range[:offset]]

    def _in_quarantine(self, port: int) -> bool:
        return time.monotonic() - self._given_back.get(port, float("-inf")) < QUARANTINE


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As llama-server does: a connection in TIME_WAIT does not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
