"""What an instance wrote: raw bytes in a bounded ring in memory and in rotated files.

Nothing is parsed and no line is waited for: a program that never ends its line grows nothing. A
write that fails drops bytes and counts them, because reading must go on: a full pipe would freeze
the instance and a closed one would kill it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from llamactl.instances.logfiles import Cut, LogFiles

RING_SIZE = 512 * 1024


class InstanceLog:
    """The output of one instance over all its lives, and of its lives before the server's start.

    ``path``, ``max_size`` and ``backups`` as in ``LogFiles``. One thread writes, any may read.
    """

    def __init__(self, path: Path, *, max_size: int, backups: int) -> None:
        self.path = path
        self._files = LogFiles(path, max_size=max_size, backups=backups)
        self._changed = threading.Condition()
        self._ring = bytearray()
        self._written = 0
        self._report_from = 0
        self._closed = False

    @property
    def written(self) -> int:
        """How many bytes were written since the server started."""
        return self._written

    @property
    def dropped(self) -> int:
        """How many of them are in no file, because that could not be written."""
        return self._files.dropped

    def write(self, block: bytes) -> None:
        """Take what the instance wrote. Never raises, never waits for a reader."""
        with self._changed:
            self._ring += block
            # Trimmed in large steps, so that a busy log is not moved in memory for every block.
            if len(self._ring) > 2 * RING_SIZE:
                del self._ring[:-RING_SIZE]
            self._written += len(block)
            self._files.write(block)
            self._changed.notify_all()

    def last_lines(self, count: int, *, longest: int = 2000) -> tuple[str, ...]:
        """The last lines since ``begin_report``; long ones are cut."""
        with self._changed:
            size = min(self._written - self._report_from, len(self._ring), 64 * 1024)
            recent = bytes(self._ring[len(self._ring) - size :])
        lines = recent.decode("utf-8", "replace").splitlines()[-count:]
        return tuple(line[:longest] for line in lines)

    def begin_report(self) -> None:
        """What was written before belongs to an earlier process, and into no report any more."""
        with self._changed:
            self._report_from = self._written

    def tail(self, lines: int | None) -> bytes:
        """The last ``lines`` lines from the files, all that a bounded look back finds for None."""
        with self.whole() as cut:
            return cut.tail(lines)

    def whole(self) -> Cut:
        """All that is kept, as it is now; whoever asks closes it."""
        with self._changed:
            return self._files.cut()

    def follow(
        self, gone: Callable[[], bool], lines: int | None = 0, *, pause: float = 5.0
    ) -> Iterator[bytes]:
        """The last ``lines`` lines and what is written after them, as it comes.

        Nothing comes twice and nothing is missing in between. ``b""`` after each ``pause``
        (seconds) without anything; ends when ``gone()`` is true. A reader that is slower than the
        ring is told how much it missed.
        """
        with self._changed:
            position = self._written
            cut = self._files.cut()
        with cut:
            tail = cut.tail(lines)
        return self._follow_from(position, tail, gone, pause)

    def _follow_from(
        self, position: int, tail: bytes, gone: Callable[[], bool], pause: float
    ) -> Iterator[bytes]:
        if tail:
            yield tail
        while not self._closed and not gone():
            with self._changed:
                if self._written == position and not self._closed:
                    self._changed.wait(pause)
                fresh = self._written - position
                kept = min(fresh, len(self._ring))
                block = bytes(self._ring[len(self._ring) - kept :]) if kept else b""
                position = self._written
            if fresh > kept:
                yield f"\n--- llamactl: {fresh - kept} bytes came too fast to be shown\n".encode()
            yield block

    def end_followers(self) -> None:
        """End those who follow, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self) -> None:
        """Close the file and end those who follow."""
        self.end_followers()
        self.release()

    def delete(self) -> None:
        """Close, and remove every file of this log."""
        self.end_followers()
        with self._changed:
            self._files.delete()

    def release(self) -> None:
        """Close the file until the next write: a stopped instance holds none open."""
        with self._changed:
            self._files.release()
