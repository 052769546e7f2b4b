"""One thread for the output and the ends of all processes.

It reads each pipe into its instance's log and notices each exit. An end is announced once the pipe
is read to its end, or two seconds after the exit when somebody else still holds it, so that the
last words are in the log before anybody asks for them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from llamactl.instances.logs import InstanceLog
from llamactl.instances.spawner import Process

logger = logging.getLogger(__name__)

_BLOCK = 64 * 1024
#: Seconds that are waited after the exit for a pipe that another process holds open.
_LINGER = 2.0
#: Seconds between two looks at processes where the system cannot tell of their end.
_LOOK = 0.1


@dataclass(eq=False)
class _Watched:
    process: Process
    log: InstanceLog
    on_end: Callable[[int], None]
    reading: bool = True
    exit_code: int | None = None
    ended_at: float = 0.0


class Watcher:
    """Reads output and reaps. ``watch`` may be called by any thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_reading, self._wake_writing = os.pipe()
        os.set_blocking(self._wake_reading, False)
        self._lock = threading.Lock()
        self._new: list[_Watched] = []
        self._all: list[_Watched] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="instance-watcher", daemon=True)

    def start(self) -> None:
        self._selector.register(self._wake_reading, selectors.EVENT_READ, None)
        self._thread.start()

    def watch(self, process: Process, log: InstanceLog, on_end: Callable[[int], None]) -> None:
        """Read its output from now on; call ``on_end(exit_code)`` once, when it has ended."""
        with self._lock:
            self._new.append(_Watched(process, log, on_end))
        self._wake()

    def stop(self) -> None:
        """End the thread. What is still watched is no longer read."""
        self._stopping = True
        self._wake()
        self._thread.join()
        for watched in self._all:
            watched.process.close()
        self._selector.close()
        os.close(self._wake_reading)
        os.close(self._wake_writing)

    def _wake(self) -> None:
        os.write(self._wake_writing, b"\0")

    def _work(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(self._pause()):
                if key.data is None:
                    self._drain_wakes()
                elif key.fd == key.data.process.output:
                    self._read(key.data)
                else:
                    self._selector.unregister(key.fd)
                    self._reap(key.data)
            self._look_around()

    def _pause(self) -> float | None:
        """How long nothing needs looking at."""
        without_handle = any(each.process.handle < 0 for each in self._all)
        lingering = any(each.exit_code is not None for each in self._all)
        return _LOOK if without_handle or lingering else None

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_reading, 512):
                pass
        with self._lock:
            new, self._new = self._new, []
        for watched in new:
            self._all.append(watched)
            process = watched.process
            self._selector.register(process.output, selectors.EVENT_READ, watched)
            if process.handle >= 0:
                self._selector.register(process.handle, selectors.EVENT_READ, watched)

    def _read(self, watched: _Watched) -> None:
        try:
            block = os.read(watched.process.output, _BLOCK)
        except BlockingIOError:
            return
        except OSError as error:
            logger.warning("output of process %d: %s", watched.process.pid, error)
            block = b""
        if block:
            watched.log.write(block)
        else:
            self._end_of_output(watched)

    def _end_of_output(self, watched: _Watched) -> None:
        if watched.reading:
            watched.reading = False
            self._selector.unregister(watched.process.output)

    def _reap(self, watched: _Watched) -> None:
        watched.exit_code = watched.process.reap()
        watched.ended_at = time.monotonic()

    def _look_around(self) -> None:
        for watched in list(self._all):
            if watched.exit_code is None:
                if watched.process.handle < 0 and watched.process.ended():
                    self._reap(watched)
                continue
            if not watched.reading or time.monotonic() - watched.ended_at > _LINGER:
                self._end_of_output(watched)
                self._all.remove(watched)
                watched.process.close()
                watched.on_end(watched.exit_code)
