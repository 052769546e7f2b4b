"""Bytes from a socket into a file without a detour through this process, where Linux can do that.

Only plain connections: what is encrypted has to come here to be read. On a fast line it saves a
copy of every byte and much of the interpreter's time.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import socket
import sys
from typing import Any

from llamactl.downloads import disk

if sys.platform == "linux":
    import fcntl

AVAILABLE = sys.platform == "linux" and hasattr(os, "splice")

_F_SETPIPE_SZ = 1031
_PIPE_SIZE = 1024 * 1024
_NOT_THERE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class Pipe:
    """What the kernel wants between a socket and a file. Made when it is first needed."""

    def __init__(self) -> None:
        self.works = AVAILABLE
        self._ends: tuple[int, int] | None = None

    def move(self, source: int, descriptor: int, offset: int, count: int) -> int:
        """Move up to ``count`` bytes that ``source`` has now to ``offset`` of a file.

        Waits for the first of them; 0 at the end of ``source``.
        """
        # ``works`` is false elsewhere, so nobody gets here; the type checker has to be told.
        if sys.platform != "linux":
            raise NotImplementedError
        reading, writing = self._open()
        taken = os.splice(source, writing, count)
        try:
            left = taken
            while left and self.works:
                at = offset + taken - left
                try:
                    left -= os.splice(reading, descriptor, left, offset_dst=at)
                except OSError as error:
                    if error.errno not in _NOT_THERE:
                        raise
                    # This file system does not take part; the bytes come out by hand this once.
                    self.works = False
            while left:
                content = os.read(reading, left)
                disk.write_at(descriptor, memoryview(content), offset + taken - left)
                left -= len(content)
        except BaseException:
            # What is left in it belongs to nobody.
            self.close()
            raise
        return taken

    def close(self) -> None:
        if self._ends is not None:
            for end in self._ends:
                os.close(end)
            self._ends = None

    def _open(self) -> tuple[int, int]:
        if self._ends is None:
            self._ends = os.pipe()
            if sys.platform == "linux":
                with contextlib.suppress(OSError):  # a limit on the memory of all pipes
                    fcntl.fcntl(self._ends[1], _F_SETPIPE_SZ, _PIPE_SIZE)
        return self._ends


class SplicedResponse(http.client.HTTPResponse):
    """A response of a plain connection that can hand its body to the kernel."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._sock = sock
        self._drained = False

    @property
    def spliceable(self) -> bool:
        """Whether the body is nothing but the bytes that follow, and there are some."""
        return not self.chunked and self.length is not None and self.length > 0

    def move(self, pipe: Pipe, descriptor: int, offset: int, count: int) -> int:
        """Put up to ``count`` bytes of the body at ``offset`` of a file; fewer only at its end."""
        assert self.length is not None
        count = min(count, self.length)
        moved = 0
        if not self._drained:
            moved = self._move_buffered(descriptor, offset, count)
        if not self._drained:
            return self._moved(moved)
        limit = self._sock.gettimeout()
        # With a limit of Python's own the socket would never wait in the kernel.
        self._sock.settimeout(None)
        try:
            while moved < count:
                taken = pipe.move(self._sock.fileno(), descriptor, offset + moved, count - moved)
                if not taken:
                    break
                moved += taken
        except ConnectionError:
            if not moved:
                raise
        finally:
            self._sock.settimeout(limit)
        return self._moved(moved)

    def _moved(self, count: int) -> int:
        """Note that so much of the body is gone; at its end the connection can serve again."""
        assert self.length is not None
        self.length -= count
        if not self.length:
            self.read(1)
        return count

    def _move_buffered(self, descriptor: int, offset: int, count: int) -> int:
        """What came with the headers lies in a buffer on this side of the socket."""
        content = self.fp.read1(count)
        disk.write_at(descriptor, memoryview(content), offset)
        # One read of at least its size leaves nothing in the buffer.
        self._drained = count >= io.DEFAULT_BUFFER_SIZE
        return len(content)
