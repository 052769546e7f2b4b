"""Work that its caller can leave at once, and waits that can be ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from llamactl.errors import Interrupted, NetworkError

T = TypeVar("T")

_POLL_SECONDS = 0.05


class Abandonable(Generic[T]):
    """Runs ``work`` in a thread of its own, and stops waiting for it when ``halt`` is set.

    Nothing else interrupts a name lookup, a connect or a TLS handshake. The thread is left to end
    by itself, which the time limits of its sockets see to; ``work`` gets an event that tells it
    that nobody waits any more.
    """

    def __init__(self, work: Callable[[threading.Event], T]) -> None:
        self._work = work
        self._abandoned = threading.Event()
        self._done = threading.Event()
        self._result: list[T] = []
        self._error: BaseException | None = None

    def run(self, halt: threading.Event | None, limit: float) -> T:
        """What ``work`` returns or raises.

        Raises ``Interrupted`` when ``halt`` is set first, ``NetworkError`` after ``limit`` seconds.
        """
        if halt is not None and halt.is_set():
            raise Interrupted
        thread = threading.Thread(target=self._run, name="hub-request", daemon=True)
        thread.start()
        deadline = time.monotonic() + limit
        while not self._done.wait(_POLL_SECONDS):
            if halt is not None and halt.is_set():
                self._abandoned.set()
                raise Interrupted
            if time.monotonic() > deadline:
                self._abandoned.set()
                raise NetworkError("The hub took too long to answer")
        thread.join()
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._work(self._abandoned))
        except BaseException as error:  # noqa: BLE001  # it is raised again where the caller waits
            self._error = error
        finally:
            self._done.set()


def pause(seconds: float, halt: threading.Event | None) -> None:
    """Wait. Raises ``Interrupted`` as soon as ``halt`` is set."""
    if halt is None:
        time.sleep(seconds)
    elif halt.wait(seconds):
        raise Interrupted
