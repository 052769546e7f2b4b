"""The partial file of one download, and the sidecar that says which of its bytes are there.

The partial has its full size from the start, so its size says nothing: the sidecar's ranges are
the only truth, and a range enters them only once its bytes are on the disk. Both names end in
``.incomplete``, which every reader of these caches leaves alone and ``hf cache prune`` removes.

A partial is known by its content (``oid`` and ``size``), not by the commit or the URL that it
came from. A sidecar that is missing, garbled or of other content means starting over.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from llamactl.downloads import disk
from llamactl.downloads.byte_ranges import ByteRanges, parse_ranges
from llamactl.errors import LlamactlError
from llamactl.models.opening import read_beginning

_FORMAT = 1
_SUFFIX = ".incomplete"
_LARGEST_SIDECAR = 16 * 1024 * 1024
#: No link is followed, and nothing that stands there under our name is waited for.
_WARY = 0
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
    _WARY |= getattr(os, _flag, 0)


class PartBusy(LlamactlError):
    """Another job, or another program, is writing this partial."""

    code = "partial_in_use"


class PartClosed(Exception):
    """A write came after the partial was given up; its bytes are not wanted any more."""


class PartFile:
    """The one writer's hold on a partial. Its methods may be called from several threads."""

    def __init__(self, path: Path, size: int, oid: str) -> None:
        """Take the partial at ``path``, new or as it was left, with room for all its bytes.

        Raises ``PartBusy``, ``InsufficientSpace`` or ``CacheNotWritable``.
        """
        self.path = path
        self.size = size
        self.oid = oid
        self.etag = ""
        self._lock = threading.Lock()
        self._recording = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._writers = 0
        self._closed = False
        with disk.named_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = _open_locked(path)
            self._received = ByteRanges()
            try:
                self._received = self._left_by_an_earlier_run()
                if os.fstat(self._descriptor).st_size != size:
                    disk.allocate(self._descriptor, size)
            except BaseException:
                if not self._received:
                    path.unlink(missing_ok=True)
                os.close(self._descriptor)
                raise
        self._durable = self._received.total

    @property
    def durable(self) -> int:
        """How many bytes the sidecar vouches for."""
        return self._durable

    @property
    def received(self) -> int:
        """How many bytes were written, on the disk already or not."""
        return self._received.total

    @property
    def complete(self) -> bool:
        return self._received.total == self.size

    def missing(self) -> ByteRanges:
        """What is still to be fetched."""
        with self._lock:
            return self._received.gaps(self.size)

    def run_end(self, position: int) -> int:
        """Up to where the file can be read without a gap from ``position`` on."""
        with self._lock:
            return self._received.end_of_run(position)

    def write(self, data: bytes, offset: int) -> None:
        """Put bytes in their place. A byte that is there already must not be written again."""

        def put(descriptor: int) -> int:
            disk.write_at(descriptor, memoryview(data), offset)
            return len(data)

        self.fill(offset, put)

    def fill(self, offset: int, put: Callable[[int], int]) -> int:
        """Let ``put`` write into the file, given its descriptor, from ``offset`` on.

        It returns how many bytes it wrote, and so does this.
        """
        with self._lock:
            if self._closed:
                raise PartClosed
            self._writers += 1
        written = 0
        try:
            with disk.named_errors(self.path):
                written = put(self._descriptor)
        finally:
            with self._lock:
                self._received.add(offset, offset + written)
                self._writers -= 1
                self._idle.notify_all()
        return written

    def read(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` from ``offset``; how many bytes came."""
        return disk.read_at(self._descriptor, buffer, offset)

    def record(self) -> int:
        """Make what was received durable, then say so in the sidecar; how many bytes that is."""
        with self._recording:
            with self._lock:
                if self._closed:
                    return self._durable
                ranges = self._received.copy()
            if ranges.total == self._durable:
                return self._durable
            with disk.named_errors(self.path):
                disk.sync_content(self._descriptor)
                self._write_sidecar(ranges)
            self._durable = ranges.total
            return self._durable

    def reset(self) -> None:
        """Forget every byte: what came was not the file that was asked for."""
        with self._recording, self._lock:
            with contextlib.suppress(FileNotFoundError):
                sidecar_of(self.path).unlink()
            self._received = ByteRanges()
            self._durable = 0
            self.etag = ""

    def seal(self) -> None:
        """Return when all bytes and the file's size are on the disk, ready for its final name."""
        with self._recording, disk.named_errors(self.path):
            os.fsync(self._descriptor)
            self._durable = self._received.total

    def close(self) -> None:
        """Give the partial up; it stays where it is. Returns once no write is under way."""
        with self._recording:
            with self._lock:
                if self._closed:
                    return
                self._closed = True
                while self._writers:
                    self._idle.wait()
            os.close(self._descriptor)

    def _left_by_an_earlier_run(self) -> ByteRanges:
        """The ranges that the sidecar vouches for, or none and an empty file."""
        found = os.fstat(self._descriptor)
        ranges = None
        if found.st_size == self.size:
            ranges = self._read_sidecar()
        if ranges is not None:
            return ranges
        with contextlib.suppress(FileNotFoundError):
            sidecar_of(self.path).unlink()
        os.ftruncate(self._descriptor, 0)
        return ByteRanges()

    def _read_sidecar(self) -> ByteRanges | None:
        value = _load(sidecar_of(self.path))
        if value is None or (value.get("oid"), value.get("size")) != (self.oid, self.size):
            return None
        etag = value.get("etag")
        self.etag = etag if isinstance(etag, str) else ""
        return parse_ranges(value.get("ranges"), self.size)

    def _write_sidecar(self, ranges: ByteRanges) -> None:
        sidecar = sidecar_of(self.path)
        content = json.dumps(
            {
                "format": _FORMAT,
                "oid": self.oid,
                "size": self.size,
                "etag": self.etag,
                "ranges": [list(pair) for pair in ranges],
            }
        )
        fresh = _fresh_name(sidecar)
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _WARY, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(sidecar)


def sidecar_of(path: Path) -> Path:
    """Where the sidecar of the partial at ``path`` is."""
    return path.with_name(path.name.removesuffix(_SUFFIX) + ".ranges" + _SUFFIX)


def recorded_bytes(path: Path, size: int, oid: str) -> int:
    """How many bytes of a partial are there, by its sidecar, whoever is writing it."""
    value = _load(sidecar_of(path))
    if value is None or (value.get("oid"), value.get("size")) != (oid, size):
        return 0
    ranges = parse_ranges(value.get("ranges"), size)
    return ranges.total if ranges is not None and path.exists() else 0


def remove_partial(path: Path) -> bool:
    """Remove a partial and its sidecar; False when somebody is writing it at this moment."""
    sidecar = sidecar_of(path)
    with disk.named_errors(path):
        if path.exists():
            try:
                descriptor = _open_locked(path)
            except PartBusy:
                return False
            if os.name == "nt":
                os.close(descriptor)  # a file that is open cannot be removed there
                path.unlink()
            else:
                try:
                    path.unlink()
                finally:
                    os.close(descriptor)
        for name in (sidecar, _fresh_name(sidecar)):
            name.unlink(missing_ok=True)
    return True


def _fresh_name(sidecar: Path) -> Path:
    return sidecar.with_name(sidecar.name.removesuffix(_SUFFIX) + ".new" + _SUFFIX)


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _WARY, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileExistsError(errno.EEXIST, "not a plain file", str(path))
        if not disk.lock(descriptor):
            os.close(descriptor)
            raise PartBusy(f"{path.name} is being written by another download")
        # Its last holder may have removed or renamed it between the open and the lock.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        os.close(descriptor)


def _load(sidecar: Path) -> dict[str, object] | None:
    try:
        value = json.loads(read_beginning(sidecar, _LARGEST_SIDECAR, follow_links=False))
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(value, dict) and value.get("format") == _FORMAT:
        return value
    return None
