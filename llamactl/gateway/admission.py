"""How many requests may be inside at once, and which of them to end.

Each request in the gateway holds a thread of the web server, from the first byte of its body to the
last of its answer, unless nginx carries the answer: then it holds only its place here. Limits are
told at once: a client that waits for a thread would learn nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

from llamactl.access.principal import Principal
from llamactl.config import GatewayConfig
from llamactl.errors import LlamactlError, ShuttingDown, TooManyRequests


class Guest(Protocol):
    """A request that was admitted."""

    principal: Principal

    def cut(self, error: LlamactlError) -> None:
        """End the request from another thread; its client is told ``error``.

        Nothing happens to a request that nginx carries: it ends with its instance.
        """


class Admission:
    """The requests that are inside. Thread-safe."""

    def __init__(self, limits: GatewayConfig) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._guests: set[Guest] = set()
        self._by_key: Counter[int] = Counter()
        self._waiting: Counter[int] = Counter()
        self._closed = False

    def enter(self, guest: Guest) -> None:
        """Let a request in. Raises ``TooManyRequests`` or ``ShuttingDown``."""
        with self._changed:
            if self._closed:
                raise ShuttingDown("The server is shutting down", retry_after=10)
            if len(self._guests) >= self._limits.max_streams:
                raise TooManyRequests(
                    f"{len(self._guests)} requests are being answered, as many as "
                    "gateway.max_streams allows",
                    retry_after=1,
                )
            key, limit = guest.principal.key_id, self._limits.max_streams_per_key
            if key is not None:
                if limit is not None and self._by_key[key] >= limit:
                    raise TooManyRequests(
                        f"{limit} requests with this key are being answered, as many as "
                        "gateway.max_streams_per_key allows",
                        retry_after=1,
                    )
                self._by_key[key] += 1
            self._guests.add(guest)

    def leave(self, guest: Guest) -> None:
        """Count a request out; a second time changes nothing."""
        with self._changed:
            if guest not in self._guests:
                return
            self._guests.remove(guest)
            key = guest.principal.key_id
            if key is not None:
                self._by_key[key] -= 1
                if not self._by_key[key]:
                    del self._by_key[key]
            self._changed.notify_all()

    @contextlib.contextmanager
    def waiting_for(self, instance_id: int) -> Iterator[None]:
        """A place in the line for an instance that is not there yet, or ``TooManyRequests``."""
        with self._changed:
            if self._waiting[instance_id] >= self._limits.max_waiting:
                raise TooManyRequests(
                    f"{self._limits.max_waiting} requests wait for this model, as many as "
                    "gateway.max_waiting allows",
                    retry_after=5,
                )
            self._waiting[instance_id] += 1
        try:
            yield
        finally:
            with self._changed:
                self._waiting[instance_id] -= 1
                if not self._waiting[instance_id]:
                    del self._waiting[instance_id]

    def count(self) -> int:
        """How many requests are inside."""
        with self._changed:
            return len(self._guests)

    def guests(self) -> list[Guest]:
        """The requests that are inside."""
        with self._changed:
            return list(self._guests)

    def close(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self._closed = True

    def wait_until_empty(self, seconds: float, hurry: threading.Event) -> bool:
        """Wait for the last request to leave; false if ``seconds`` pass or ``hurry`` is set."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._guests:
                left = deadline - time.monotonic()
                if left <= 0 or hurry.is_set():
                    return False
                self._changed.wait(min(left, 0.2))
        return True

    def cut(self, chosen: Callable[[Guest], bool], error: LlamactlError) -> None:
        """End every request that ``chosen`` picks."""
        with self._changed:
            picked = [guest for guest in self._guests if chosen(guest)]
        for guest in picked:
            guest.cut(error)
