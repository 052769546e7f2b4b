"""What an instance wrote: raw bytes in a bounded ring in memory and in rotated files.

Nothing is parsed and no line is waited for: a program that never ends its line grows nothing. A
write that fails drops bytes and counts them, because reading must go on: a full pipe would freeze
the instance and a closed one would kill it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

RING_SIZE = 512 * 1024
#: How much of the files a tail looks at.
LONGEST_TAIL = 4 * 1024 * 1024
#: Seconds after which a log file that an outsider moved away is noticed.
LOOK_AGAIN = 5.0
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class InstanceLog:
    """The output of one instance over all its lives. ``path`` is the newest file, mode 0600.

    Older files are ``NAME.log.1`` and so on, ``backups`` of them. One thread writes, any may read.
    """

    def __init__(self, path: Path, *, max_size: int, backups: int) -> None:
        self.path = path
        self.dropped = 0
        self._max_size = max_size
        self._backups = backups
        self._changed = threading.Condition()
        self._ring = bytearray()
        self._written = 0
        self._report_from = 0
        self._fd = -1
        self._size = 0
        self._checked_at = 0.0
        self._closed = False

    @property
    def written(self) -> int:
        """How many bytes were written since the server started."""
        return self._written

    def write(self, block: bytes) -> None:
        """Take what the instance wrote. Never raises, never waits for a reader."""
        with self._changed:
            self._ring += block
            # Trimmed in large steps, so that a busy log is not moved in memory for every block.
            if len(self._ring) > 2 * RING_SIZE:
                del self._ring[:-RING_SIZE]
            self._written += len(block)
            self._to_file(block)
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
        with self._changed:
            found = b""
            for path in (self.path, self._backup(1)):
                found = _end_of(path, LONGEST_TAIL - len(found)) + found
                if len(found) >= LONGEST_TAIL or (lines is not None and found.count(b"\n") > lines):
                    break
        if lines is None:
            return found
        return b"".join(found.splitlines(keepends=True)[-lines:]) if lines > 0 else b""

    def follow(self, gone: Callable[[], bool], *, pause: float = 5.0) -> Iterator[bytes]:
        """What is written from now on, as it comes; ``b""`` after each ``pause`` without any.

        Ends when ``gone()`` is true. A reader that is slower than the ring misses the middle.
        """
        with self._changed:
            position = self._written
        return self._follow_from(position, gone, pause)

    def _follow_from(
        self, position: int, gone: Callable[[], bool], pause: float
    ) -> Iterator[bytes]:
        while not self._closed and not gone():
            with self._changed:
                if self._written == position:
                    self._changed.wait(pause)
                missing = min(self._written - position, len(self._ring))
                block = bytes(self._ring[len(self._ring) - missing :]) if missing else b""
                position = self._written
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
        self.close()
        for path in (self.path, *(self._backup(number) for number in range(1, 100))):
            if path.is_symlink() or path.exists():
                with contextlib.suppress(OSError):
                    path.unlink()
            elif path != self.path:
                break

    def release(self) -> None:
        """Close the file until the next write: a stopped instance holds none open."""
        with self._changed:
            self._close_file()

    def _to_file(self, block: bytes) -> None:
        try:
            self._check_file()
            if self._size and self._size + len(block) > self._max_size:
                self._rotate()
            view = memoryview(block)
            while view:
                count = os.write(self._fd, view)
                self._size += count
                view = view[count:]
        except OSError as error:
            if not self.dropped:
                logger.warning("%s: output is lost: %s", self.path, error)
            self.dropped += len(block)
            # Opened anew at the next write: the file may have been moved, the disk be mended.
            self._close_file()

    def _check_file(self) -> None:
        """Open the file; every few seconds see whether somebody moved or removed it."""
        now = time.monotonic()
        if self._fd >= 0 and now - self._checked_at > LOOK_AGAIN:
            self._checked_at = now
            with contextlib.suppress(FileNotFoundError):
                if self.path.lstat().st_ino == os.fstat(self._fd).st_ino:
                    return
            self._close_file()
        if self._fd < 0:
            self._open_file()

    def _open_file(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(self.path, _FLAGS, 0o600)
        os.fchmod(self._fd, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        self._close_file()
        if self._backups == 0:
            self.path.unlink()
        for number in range(self._backups, 0, -1):
            source = self._backup(number - 1)
            if source.exists():
                source.replace(self._backup(number))
        self._open_file()

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _end_of(path: Path, size: int) -> bytes:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return file.read(size)
    return b""
