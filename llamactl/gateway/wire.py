"""HTTP/1.1 answers, read from bytes as they come.

Pure: nothing here waits. The standard library's reader blocks inside a chunk's framing, where
neither a client that leaves nor a word from another thread would wake it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from llamactl.gateway.headers import Headers

MAXIMUM_HEAD = 64 * 1024
MAXIMUM_HEADERS = 200
_MAXIMUM_CHUNK_LINE = 4096
_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Malformed(Exception):
    """The instance sent something that is no answer."""


@dataclass(frozen=True)
class Head:
    """The status and headers of an answer."""

    status: int
    headers: Headers


class Framing(Protocol):
    """Takes a body's framing away. ``done`` once the body is whole."""

    done: bool

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``. Raises ``Malformed``."""

    def whole_at_end(self) -> bool:
        """Whether the body is whole if nothing more comes."""


def request_head(method: str, target: str, headers: Headers) -> bytes:
    """A request's first bytes, up to its body."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def split_head(data: bytes) -> tuple[Head, bytes] | None:
    """The head in ``data`` and what follows it; None while it is not whole.

    Interim answers are passed over. Raises ``Malformed``.
    """
    at = 0
    while (end := data.find(b"\r\n\r\n", at, MAXIMUM_HEAD)) >= 0:
        head = _parse_head(data[at : end + 4])
        at = end + 4
        if head.status == 101:
            raise Malformed("it wants to speak another protocol")
        if head.status >= 200:
            return head, data[at:]
    if len(data) > MAXIMUM_HEAD:
        raise Malformed("its headers do not end")
    return None


def framing_of(method: str, head: Head) -> tuple[Framing, int | None]:
    """How an answer's body is framed, and its length if that is known. Raises ``Malformed``."""
    if method == "HEAD" or head.status in (204, 304):
        return Counted(0), None
    codings = [value for name, value in head.headers if name.lower() == "transfer-encoding"]
    if codings:
        if ",".join(codings).strip().lower() != "chunked":
            raise Malformed("its body has an unknown transfer encoding")
        return Chunked(), None
    lengths = {value.strip() for name, value in head.headers if name.lower() == "content-length"}
    if not lengths:
        return UntilClose(), None
    length = lengths.pop()
    if lengths or not re.fullmatch(r"[0-9]{1,18}", length):
        raise Malformed("its length is no number")
    return Counted(int(length)), int(length)


def _parse_head(data: bytes) -> Head:
    status, *lines = data[:-4].decode("latin-1").split("\r\n")
    line = _STATUS_LINE.fullmatch(status)
    if line is None:
        raise Malformed("it does not answer in HTTP")
    if len(lines) > MAXIMUM_HEADERS:
        raise Malformed("it has too many headers")
    headers = []
    for each in lines:
        name, colon, value = each.partition(":")
        # A line that goes on in the next one has had no meaning that all agree on.
        if not colon or not _TOKEN.fullmatch(name):
            raise Malformed("its headers cannot be read")
        headers.append((name, value.strip(" \t")))
    return Head(int(line.group(1)), headers)


class Counted:
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> bytes:
        payload = data[: self._left]
        self._left -= len(payload)
        self.done = self._left == 0
        return payload

    def whole_at_end(self) -> bool:
        return self.done


class UntilClose:
    """A body that ends with its connection."""

    done = False

    def feed(self, data: bytes) -> bytes:
        return data

    def whole_at_end(self) -> bool:
        return True


class Chunked:
    """A body in chunks."""

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0
        self._trailer = False
        self.done = False

    def feed(self, data: bytes) -> bytes:
        buffer = self._buffer + data if self._buffer else data
        payload: list[bytes] = []
        at = 0
        while not self.done:
            if self._left > 2:
                piece = buffer[at : at + self._left - 2]
                payload.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left > 2:
                    break
            if self._left:
                if len(buffer) - at < 2:
                    break
                if buffer[at : at + 2] != b"\r\n":
                    raise Malformed("a chunk of its body is longer than it said")
                at += 2
                self._left = 0
            end = buffer.find(b"\r\n", at)
            if end < 0:
                if len(buffer) - at > _MAXIMUM_CHUNK_LINE:
                    raise Malformed("a chunk of its body has no size")
                break
            self._begin(buffer[at:end])
            at = end + 2
        self._buffer = buffer[at:]
        return b"".join(payload)

    def _begin(self, line: bytes) -> None:
        if self._trailer:
            self.done = not line
            return
        digits = line.split(b";", 1)[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", digits):
            raise Malformed("a chunk of its body has no size")
        size = int(digits, 16)
        # A chunk's data is followed by two bytes that end its line.
        self._left = size + 2 if size else 0
        self._trailer = size == 0

    def whole_at_end(self) -> bool:
        return self.done
