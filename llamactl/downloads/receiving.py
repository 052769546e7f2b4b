"""Bytes of a plain connection, from the socket into memory of ours and from there into the file.

What is encrypted has to go through Python's layers. Where nothing is, they are left out: on a fast
line that saves copies and much of the interpreter's time.
"""

from __future__ import annotations

import http.client
import io
import socket
import sys
from typing import Any

from llamactl.downloads import disk

#: Elsewhere a cut does not wake who waits in the system for bytes.
AVAILABLE = sys.platform == "linux"

#: Received and written at once. What was just received is then still near the processor when it
#: is copied into the file; with a megabyte the two copies take half as long again.
_AT_ONCE = 128 * 1024


class PlainResponse(http.client.HTTPResponse):
    """A response of a plain connection whose body can be received without a detour."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._sock = sock
        self._drained = False

    @property
    def direct(self) -> bool:
        """Whether the body is nothing but the bytes that follow, and there are some."""
        return AVAILABLE and not self.chunked and self.length is not None and self.length > 0

    def receive(self, block: memoryview, descriptor: int, offset: int) -> int:
        """Fill ``block`` and put the same bytes at ``offset`` of a file; how many came.

        Fewer than a block only at the end of the body.
        """
        assert self.length is not None
        block = block[: self.length]
        came = 0
        if not self._drained:
            came = self._take_buffered(block)
            disk.write_at(descriptor, block[:came], offset)
        if not self._drained:
            return self._taken(came)
        limit = self._sock.gettimeout()
        # With a limit of Python's own the socket would never wait in the kernel.
        self._sock.settimeout(None)
        try:
            while came < len(block):
                room = block[came : came + _AT_ONCE]
                count = self._sock.recv_into(room, 0, socket.MSG_WAITALL)
                if not count:
                    break
                disk.write_at(descriptor, room[:count], offset + came)
                came += count
        except ConnectionError:
            if not came:
                raise
        finally:
            self._sock.settimeout(limit)
        return self._taken(came)

    def _taken(self, count: int) -> int:
        """Note that so much of the body is gone; at its end the connection can serve again."""
        assert self.length is not None
        self.length -= count
        if not self.length:
            self.read(1)
        return count

    def _take_buffered(self, block: memoryview) -> int:
        """What came with the headers lies in a buffer on this side of the socket."""
        # One read of at least its size leaves nothing in the buffer.
        self._drained = len(block) >= io.DEFAULT_BUFFER_SIZE
        return self.fp.readinto1(block)
