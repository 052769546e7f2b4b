"""A bell: any thread rings it, its owner waits for it, also together with sockets."""

from __future__ import annotations

import contextlib
import math
import os
import select
from collections.abc import Iterable


def readable_of(descriptors: Iterable[int], timeout: float | None) -> frozenset[int]:
    """Those that have something to read or were closed; waits up to ``timeout`` seconds for one.

    By ``poll``, because ``select`` refuses descriptors beyond 1023 and a busy server has them.
    """
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    ready = poll.poll(None if timeout is None else math.ceil(timeout * 1000))
    return frozenset(descriptor for descriptor, _ in ready)


class Bell:
    """Rings that come before a wait are not lost; several count as one."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)

    def fileno(self) -> int:
        """Readable while a ring was not answered."""
        return self._reading

    def ring(self) -> None:
        """Wake the owner. Never waits."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, b"\0")

    def wait(self, timeout: float | None) -> bool:
        """Wait for a ring and answer it; False if there was none in time."""
        readable = readable_of([self._reading], timeout)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reading, 512):
                pass
        return bool(readable)

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)
