"""One after the other: what requests compute from knowing what to ask until it has been asked.

Python runs one thread at a time. Of two hundred requests that begin at once each would want to run
now, and so does the thread that accepts connections: ``/healthz`` would wait for all of them. In a
line they wait for each other instead, and do not want to run meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """A line, in the order of coming. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        self._line: deque[threading.Lock] = deque()

    def take(self) -> None:
        """Wait for a turn; whoever has it calls ``give``."""
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            bell = threading.Lock()
            bell.acquire()
            self._line.append(bell)
        bell.acquire()

    def give(self) -> None:
        """Leave the turn to whoever has waited longest."""
        with self._lock:
            if self._line:
                self._line.popleft().release()
            else:
                self._is_taken = False


class Turn:
    """One request's turn, for the thread that answers it.

    Before that thread waits for anything it calls ``end``, so that nobody waits behind a client, an
    instance's start, or an instance's answer.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._is_mine = False

    def __enter__(self) -> Turn:
        self._turns.take()
        self._is_mine = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Let the next one go on; a second time changes nothing."""
        if self._is_mine:
            self._is_mine = False
            self._turns.give()
