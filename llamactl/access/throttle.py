"""Wrong keys and logins, slowed down by address.

A right key is never slowed: the lookup comes first, and only a failure asks here.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from llamactl.errors import TooManyRequests


class Throttle:
    """A bucket of ``burst`` failures an address, one more each ``seconds``; thread-safe.

    Memory is bounded: the addresses that failed longest ago are forgotten first.
    """

    def __init__(
        self,
        burst: int = 10,
        seconds: float = 6.0,
        addresses: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._seconds = seconds
        self._addresses = addresses
        self._clock = clock
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raise ``TooManyRequests`` while the address has no failure left to make."""
        with self._lock:
            level = self._level(address)
        # Draining is continuous, so a hair over the brim is not full again.
        if level > self._burst - 1:
            raise TooManyRequests(
                "Too many wrong keys came from this address",
                hint="Wait, then try again with the right one.",
                retry_after=max(1.0, (level - self._burst + 1) * self._seconds),
            )

    def failed(self, address: str) -> None:
        """Count one failure."""
        with self._lock:
            level = self._level(address)
            self._levels[address] = (min(level + 1.0, float(self._burst)), self._clock())
            self._levels.move_to_end(address)
            if len(self._levels) > self._addresses:
                self._levels.popitem(last=False)

    def _level(self, address: str) -> float:
        level, at = self._levels.get(address, (0.0, 0.0))
        return max(0.0, level - (self._clock() - at) / self._seconds)
