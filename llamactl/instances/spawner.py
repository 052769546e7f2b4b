"""Making processes: one permanent thread is the only one that ever does.

The kernel's "kill it when its parent dies" means the parent *thread*. A child of a thread that
serves a request would be killed when that thread ends, so every child belongs to one thread that
lives as long as the server. ``Spawner`` is the place where a container or another machine could
make the processes instead.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llamactl.instances import processes

SHIM = Path(__file__).with_name("shim.py")


@dataclass(frozen=True)
class Order:
    """A process to be made. Its descendants are known by ``mark``, their ``LLAMACTL_RUN``."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    mark: str


class Process(Protocol):
    """A process of ours with whatever it starts."""

    pid: int
    output: int
    handle: int

    def signal(self, number: int) -> None:
        """Send a signal to the whole group; nothing happens after ``reap``."""

    def ended(self) -> bool:
        """Whether the first process has ended. Its children may live on."""

    def reap(self) -> int:
        """Kill what is left of it, also who left the group; the exit code (negative: a signal)."""

    def close(self) -> None:
        """Give the descriptors back."""


class Spawner(Protocol):
    def start(self) -> None: ...

    def spawn(self, order: Order) -> Process: ...

    def stop(self) -> None: ...


class LocalProcess:
    """A child of this process, leader of a session of its own.

    ``output`` is the reading end of its one pipe for both outputs, ``handle`` a pidfd that becomes
    readable at its end, or -1 where the system has none.
    """

    def __init__(self, popen: subprocess.Popen[bytes], output: int, mark: str) -> None:
        self.pid = popen.pid
        self.output = output
        self.handle = os.pidfd_open(popen.pid) if hasattr(os, "pidfd_open") else -1
        self._popen = popen
        self._mark = mark
        self._lock = threading.Lock()

    def signal(self, number: int) -> None:
        # Until it is reaped even a dead leader keeps the group's number from going to others.
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if self._popen.returncode is None:
                os.killpg(self.pid, number)

    def ended(self) -> bool:
        with self._lock:
            if self._popen.returncode is not None:
                return True
            if not hasattr(os, "waitid"):
                return self._popen.poll() is not None
            options = os.WEXITED | os.WNOWAIT | os.WNOHANG
            return os.waitid(os.P_PID, self.pid, options) is not None

    def reap(self) -> int:
        self.signal(signal.SIGKILL)
        with self._lock:
            code = self._popen.wait()
        for _ in range(3):  # one may just have made another
            if not processes.kill_marked(self._mark):
                break
        return code

    def close(self) -> None:
        for descriptor in (self.output, self.handle):
            if descriptor >= 0:
                os.close(descriptor)
        self.output = self.handle = -1


class LocalSpawner:
    """Makes children of this process through ``shim.py``."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[Order, Future[Process]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. It is a daemon: its end must never come before that of the process."""
        self._thread = threading.Thread(target=self._work, name="spawner", daemon=True)
        self._thread.start()

    def spawn(self, order: Order) -> Process:
        """A new process; ``OSError`` if the system cannot make one."""
        answer: Future[Process] = Future()
        self._orders.put((order, answer))
        return answer.result()

    def stop(self) -> None:
        """End the thread, and by that every child that is still there."""
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (item := self._orders.get()) is not None:
            order, answer = item
            try:
                answer.set_result(_spawn(order))
            except (OSError, ValueError) as error:
                answer.set_exception(error)


def _spawn(order: Order) -> LocalProcess:
    reading, writing = os.pipe()
    try:
        os.set_blocking(reading, False)
        shim = [sys.executable, "-I", "-S", str(SHIM), str(os.getpid())]
        popen = subprocess.Popen(
            [*shim, *order.argv],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            env={**order.environment, processes.MARK: order.mark},
            cwd=order.directory,
            start_new_session=True,
            close_fds=True,
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return LocalProcess(popen, reading, order.mark)
