"""One holder at a time, across processes, and word of who it is."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, where `serve` is refused and nothing else shares the directory
    fcntl = None  # type: ignore[assignment]  # the module is absent on that system


class FileLock:
    """An exclusive lock on a file that also holds a JSON note about its holder.

    The lock ends with the process, however it ends, so that nobody ever has to remove it by hand.
    The descriptor is not inherited by programs that the holder starts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock now, or say False when another process has it."""
        if self._descriptor is not None:
            return True
        # It lies in the data directory, and whoever locks first makes that.
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
        self._descriptor = descriptor
        return True

    def write_note(self, **note: Any) -> None:
        """Replace the note; only the holder may."""
        if self._descriptor is None:
            raise RuntimeError("only the holder of a lock writes its note")
        content = json.dumps(note).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)

    def holder(self) -> dict[str, Any]:
        """The note of the process that holds the lock; empty when nobody does.

        A holder that has not written its note yet is ``{"pid": None}``.
        """
        probe = FileLock(self.path)
        if not self.path.exists() or (self._descriptor is None and probe.acquire()):
            probe.release()
            return {}
        return self.read_note() or {"pid": None}

    def read_note(self) -> dict[str, Any]:
        """The note as it is written, whoever holds the lock; empty when there is none."""
        try:
            note = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def release(self) -> None:
        """Give the lock back; the file stays, so that two processes never lock two files."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = None
