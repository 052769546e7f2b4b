"""How many connections fetch at a time. Pure: times and figures come from outside.

More connections help where each of them is slow. Where one keeps this machine busy, more of them
only fight for the processor and for the file, and keep the hash from following; so a transfer
begins with one and opens up as soon as it turns out not to be busy. Where it is, twice as many are
tried now and then, and kept if that is worth it.

A server that is overloaded gets half as many, and after a quiet time twice as many again.
"""

from __future__ import annotations

_NARROW = 1
#: Seconds over which figures are taken: to see whether workers are busy, and to compare.
_GLANCE = 0.1
_WINDOW = 0.2
#: Without a byte for so long the way is long, and the line is not what is waited for.
_LONG_WAY = 0.1
#: A look that comes this much too early is early enough.
_EARLY = 0.01
#: Share of a core from which the workers count as busy.
_BUSY = 0.2
#: What twice as many connections must bring to be kept.
_WORTH_IT = 1.3
#: Seconds to the first trial, when the pace is steady, and from each to the next.
_FIRST_TRIAL, _NEXT_TRIAL = 0.3, 10.0


class Width:
    """``connections`` at most; ``quiet``: seconds after which an overload is forgiven."""

    def __init__(self, connections: int, now: float, *, quiet: float, burst: float) -> None:
        """``burst``: refusals within so many seconds count as one."""
        self._connections = connections
        self._ceiling = connections
        self._quiet = quiet
        self._burst = burst
        self._refused_at: float | None = None
        self._width = min(_NARROW, connections)
        self._opened = self._width == connections
        self._started_at = now
        self._window: tuple[float, int, float] | None = None
        self._next_trial = 0.0
        self._before: tuple[int, float] | None = None

    @property
    def now(self) -> int:
        """The present number."""
        return min(self._width, self._ceiling)

    def overloaded(self, now: float) -> None:
        """A server asked for less."""
        if self._refused_at is None or now - self._refused_at >= self._burst:
            self._refused_at = now
            self._ceiling = max(1, self.now // 2)

    def look(self, now: float, fetched: int, busy: float) -> None:
        """``fetched`` bytes came so far, and the workers used ``busy`` seconds of processor."""
        if self._refused_at is not None and now - self._refused_at > self._quiet:
            self._refused_at = now
            self._ceiling = min(self._connections, self._ceiling * 2)
        if self._opened:
            return
        if not fetched:
            if now - self._started_at > _LONG_WAY:
                self._open()
            return
        if self._window is None:
            self._window = now, fetched, busy
            return
        began, had, was_busy = self._window
        glance = self._before is None and not self._next_trial
        if now - began >= (_GLANCE if glance else _WINDOW) - _EARLY:
            self._window = now, fetched, busy
            self._judge(now, (fetched - had) / (now - began), (busy - was_busy) / (now - began))

    def _judge(self, now: float, rate: float, share: float) -> None:
        if self._before is not None:
            narrower, earlier = self._before
            self._before = None
            if rate < earlier * _WORTH_IT:
                self._width = narrower
                self._next_trial = now + _NEXT_TRIAL
                return
        elif share < _BUSY:
            self._open()
            return
        if not self._next_trial:
            self._next_trial = now + _FIRST_TRIAL
        if now >= self._next_trial:
            self._before = self._width, rate
            self._width = min(self._connections, self._width * 2)
            self._opened = self._width == self._connections and self._width == self._before[0]

    def _open(self) -> None:
        self._width = self._connections
        self._opened = True
