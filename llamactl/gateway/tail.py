"""The end of an answer: it says what the answer cost, and whether it broke off inside an event."""

from __future__ import annotations

from collections import deque

from llamactl.gateway.usage import Usage, speed_in, usage_in

#: How the last event of a stream begins, in each of the dialects.
_LAST_EVENTS = (b"data: [DONE]", b"event: message_stop", b"event: response.completed")
_PIECES = 4
_BYTES = 16 * 1024


class Tail:
    """The last pieces of an answer. Not for two threads, until the answer has ended."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque(maxlen=_PIECES)

    def add(self, piece: bytes) -> None:
        """Note one piece; older ones are forgotten."""
        self._pieces.append(piece)

    def usage(self) -> Usage:
        """What the answer says that it cost."""
        return usage_in(self._end())

    def speed(self) -> float | None:
        """Tokens a second, where the answer tells them."""
        return speed_in(self._end())

    def at_boundary(self) -> bool:
        """Whether what was written ends with a whole event, or nothing was."""
        written = self._written()
        return not written or written.endswith((b"\n\n", b"\r\n\r\n"))

    def is_complete(self) -> bool:
        """Whether the last event of a stream was written: a client need not wait for its end."""
        written = self._written().replace(b"\r\n", b"\n")
        whole, mark, _ = written.rpartition(b"\n\n")
        return bool(mark) and whole.rpartition(b"\n\n")[2].lstrip().startswith(_LAST_EVENTS)

    def to_boundary(self, piece: bytes) -> bytes:
        """As much of the next piece as ends the event that was begun, or all of it."""
        before = self._written()[-3:]
        joined = before + piece
        ends = [
            at + len(mark) - len(before)
            for mark in (b"\n\n", b"\r\n\r\n")
            if (at := joined.find(mark, max(0, len(before) + 1 - len(mark)))) >= 0
        ]
        return piece[: min(ends, default=None)]

    def _end(self) -> bytes:
        return self._written()[-_BYTES:]

    def _written(self) -> bytes:
        return b"".join(self._pieces)
