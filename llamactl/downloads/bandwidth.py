"""The limit on bytes per second that all transfers share, changeable while they run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: A limit is kept over this many seconds; shorter bursts are not worth waking up for.
_BURST = 0.1
_SMALLEST_GRANT = 4096


class Bandwidth:
    """A token bucket. Without a limit, whatever is asked is granted at once."""

    def __init__(
        self, limit: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._changed = threading.Condition()
        self._clock = clock
        self._limit = limit
        self._tokens = 0.0
        self._filled_at = clock()

    @property
    def limit(self) -> int | None:
        """Bytes per second, or None."""
        return self._limit

    def set_limit(self, limit: int | None) -> None:
        """Hold all transfers to ``limit`` bytes per second from now on; None lifts it."""
        with self._changed:
            self._limit = limit
            self._tokens = 0.0
            self._filled_at = self._clock()
            self._changed.notify_all()

    def take(self, wanted: int, halt: threading.Event) -> int:
        """How many bytes may be read now, at most ``wanted``; waits for the first of them.

        0 when ``halt`` was set meanwhile.
        """
        with self._changed:
            while not halt.is_set():
                limit = self._limit
                if limit is None:
                    return wanted
                self._fill(limit)
                least = min(wanted, _SMALLEST_GRANT)
                if self._tokens >= least:
                    granted = min(wanted, int(self._tokens))
                    self._tokens -= granted
                    return granted
                self._changed.wait(min(_BURST, (least - self._tokens) / limit))
        return 0

    def give_back(self, unused: int) -> None:
        """Return what was granted and did not arrive."""
        if self._limit is not None and unused:
            with self._changed:
                self._tokens += unused

    def _fill(self, limit: int) -> None:
        now = self._clock()
        most = max(limit * _BURST, float(_SMALLEST_GRANT))
        self._tokens = min(most, self._tokens + (now - self._filled_at) * limit)
        self._filled_at = now
