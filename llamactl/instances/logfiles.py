"""The files of one log: bounded, rotated, mode 0600, and read as they were at one moment."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from llamactl.models.opening import open_regular

logger = logging.getLogger(__name__)

#: How much of the files a tail looks at.
LONGEST_TAIL = 4 * 1024 * 1024
#: Seconds after which a log file that an outsider moved away is noticed.
LOOK_AGAIN = 5.0
_BLOCK = 64 * 1024
# Whatever an outsider puts in the log's place, no link is followed and no reader of a pipe is hung.
_TO_WRITE = os.O_WRONLY | os.O_APPEND | os.O_CREAT
_TO_WRITE |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Cut:
    """The files, oldest first, as they were when it was made; later writes do not change it."""

    def __init__(self, parts: Sequence[tuple[int, int]]) -> None:
        self._parts = parts

    def __enter__(self) -> Cut:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return sum(size for _, size in self._parts)

    def pieces(self) -> Iterator[bytes]:
        """Everything, in order."""
        for descriptor, size in self._parts:
            at = 0
            while at < size and (block := os.pread(descriptor, min(_BLOCK, size - at), at)):
                at += len(block)
                yield block

    def tail(self, lines: int | None) -> bytes:
        """The last ``lines`` lines, all that a bounded look back finds for None."""
        found: list[bytes] = []
        budget, ends = LONGEST_TAIL, 0
        for block in self._backwards():
            found.append(block[-budget:])
            budget -= len(found[-1])
            ends += found[-1].count(b"\n")
            if budget == 0 or (lines is not None and ends > lines):
                break
        text = b"".join(reversed(found))
        if lines is None:
            return text
        return b"".join(text.splitlines(keepends=True)[-lines:]) if lines > 0 else b""

    def close(self) -> None:
        """Give the descriptors back; what was not read is not read any more."""
        for descriptor, _ in self._parts:
            os.close(descriptor)
        self._parts = ()

    def _backwards(self) -> Iterator[bytes]:
        for descriptor, size in reversed(self._parts):
            for at in range((size - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):
                yield os.pread(descriptor, min(_BLOCK, size - at), at)


class LogFiles:
    """``path`` is the newest file; older ones are ``NAME.log.1`` and so on, ``backups`` of them.

    None is larger than ``max_size``. Not thread-safe.
    """

    def __init__(self, path: Path, *, max_size: int, backups: int) -> None:
        self.path = path
        #: Bytes that could not be written.
        self.dropped = 0
        self._max_size = max_size
        self._backups = backups
        self._missing = 0
        self._fd = -1
        self._size = 0
        self._checked_at = 0.0

    def write(self, block: bytes) -> None:
        """Append; never raises. What cannot be written is counted, and told where it is missing."""
        view = memoryview(block)
        try:
            self._check_file()
            if self._missing:
                told = f"\n--- llamactl: {self._missing} bytes could not be written here\n"
                self._append(memoryview(told.encode()))
                self._missing = 0
            while view:
                view = view[self._append(view) :]
        except OSError as error:
            if not self._missing:
                logger.warning("%s: output is lost: %s", self.path, error)
            self._missing += len(view)
            self.dropped += len(view)
            # Opened anew at the next write: the file may have been moved, the disk be mended.
            self.release()

    def cut(self) -> Cut:
        """What is there now, to be read at leisure."""
        parts: list[tuple[int, int]] = []
        for number in range(self._backups, -1, -1):
            with contextlib.suppress(OSError):
                descriptor = open_regular(self._part(number), follow_links=False)
                parts.append((descriptor, os.fstat(descriptor).st_size))
        return Cut(parts)

    def release(self) -> None:
        """Close the file until the next write."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def delete(self) -> None:
        """Close, and remove every file, those of a former larger number too."""
        self.release()
        for number in range(max(100, self._backups + 1)):
            path = self._part(number)
            if path.is_symlink() or path.exists():
                with contextlib.suppress(OSError):
                    path.unlink()
            elif number > self._backups:
                break

    def _append(self, view: memoryview) -> int:
        if self._size and self._size + len(view) > self._max_size:
            self._rotate()
        count = os.write(self._fd, view[: self._max_size])
        self._size += count
        return count

    def _check_file(self) -> None:
        """Open the file; every few seconds see whether somebody moved or removed it."""
        now = time.monotonic()
        if self._fd >= 0 and now - self._checked_at > LOOK_AGAIN:
            self._checked_at = now
            with contextlib.suppress(FileNotFoundError):
                if self.path.lstat().st_ino == os.fstat(self._fd).st_ino:
                    return
            self.release()
        if self._fd < 0:
            self._open_file()

    def _open_file(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(self.path, _TO_WRITE, 0o600)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            self.release()
            raise FileExistsError(f"{self.path} is no file")
        os.fchmod(self._fd, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        self.release()
        if self._backups == 0:
            self.path.unlink()
        for number in range(self._backups, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._part(number - 1).replace(self._part(number))
        self._open_file()

    def _part(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path
