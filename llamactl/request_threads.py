"""The threads that answer requests: all there from the start, and whoever rested least goes first.

The standard library's pool starts a thread when a request needs it, so that with a hundred requests
at once everyone waits for a hundred starts; and it wakes the thread that has rested longest, whose
stack no cache holds any more.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

log = logging.getLogger(__name__)

_Work = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class RequestThreads:
    """What gunicorn's worker uses of a ``ThreadPoolExecutor``. Thread-safe."""

    def __init__(self, count: int) -> None:
        """Start ``count`` threads, or as many of them as the system gives: one at least."""
        self._lock = threading.Lock()
        self._resting: list[_RequestThread] = []
        self._waiting: deque[_Work] = deque()
        self._ending = False
        for started in range(count):
            try:
                _RequestThread(self.next_for).start()
            except RuntimeError as error:
                if not started:
                    raise
                log.warning("%d of %d request threads can be had: %s", started, count, error)
                return

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Have ``function`` called by a thread that rests, or by the first that is free."""
        future: Future[Any] = Future()
        work = (future, function, arguments)
        with self._lock:
            if self._ending:
                raise RuntimeError("the request threads have ended")
            if not self._resting:
                self._waiting.append(work)
                return future
            thread = self._resting.pop()
        thread.hand(work)
        return future

    def at_rest(self) -> int:
        """How many threads have nothing to do at this moment."""
        return len(self._resting)

    def shutdown(self, wait: bool = True) -> None:
        """End the threads once nothing waits any more; nobody is waited for, whatever is asked."""
        with self._lock:
            self._ending = True
            resting, self._resting = self._resting, []
        for thread in resting:
            thread.hand(None)

    def next_for(self, thread: _RequestThread) -> _Work | None:
        """What ``thread`` is to do now; None for nothing any more."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._ending:
                return None
            self._resting.append(thread)
        return thread.rest()


class _RequestThread(threading.Thread):
    def __init__(self, next_for: Callable[[_RequestThread], _Work | None]) -> None:
        # As those of the standard library: the interpreter's end waits for what still runs.
        super().__init__(name="request", daemon=False)
        self._next_for = next_for
        self._called = threading.Lock()
        self._called.acquire()
        self._work: _Work | None = None

    def hand(self, work: _Work | None) -> None:
        """Wake it; only for whoever has taken it from those that rest."""
        self._work = work
        self._called.release()

    def rest(self) -> _Work | None:
        """Wait for ``hand``."""
        self._called.acquire()
        work, self._work = self._work, None
        return work

    def run(self) -> None:
        while (work := self._next_for(self)) is not None:
            future, function, arguments = work
            try:
                result = function(*arguments)
            except BaseException as error:  # noqa: BLE001  # whoever asks for the result is told
                future.set_exception(error)
            else:
                future.set_result(result)
            # What a request held is not to be held until the next one.
            del work, future, function, arguments
