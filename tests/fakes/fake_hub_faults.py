"""Faults that a fake hub commits on request: changes to an answer, or to how it is sent."""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.fakes.fake_hub_content import Content

Ending = Literal["keep", "fin", "rst"]


@dataclass
class Delivery:
    """How a body goes out."""

    stop_after: int | None = None
    ending: Ending = "keep"
    stall_after: int | None = None
    stall_seconds: float | None = None
    rate: int | None = None
    chunked: bool = False
    delay: bool = False


@dataclass
class Answer:
    """A response before it is sent: the bytes of `content` from `start` up to `end`."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: Content = field(default_factory=lambda: Content(b""))
    start: int = 0
    end: int = 0
    delivery: Delivery = field(default_factory=Delivery)

    @classmethod
    def of(cls, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        answer = cls(status, dict(headers or {}))
        answer.replace_body(body)
        return answer

    def replace_body(self, body: bytes) -> None:
        self.content, self.start, self.end = Content(body), 0, len(body)
        self.headers["Content-Length"] = str(len(body))

    def replace_range(self, start: int, end: int, total: int) -> None:
        self.headers["Content-Range"] = f"bytes {start}-{end - 1}/{total}"


@dataclass
class Fault:
    """One rule. It applies from the `nth` matching request on, `times` times (None: for ever).

    `release()` ends a stall early; `hits` counts the requests it was applied to.
    """

    where: Literal["hub", "cdn"]
    match: str
    kind: str
    method: str | None = None
    nth: int = 1
    times: int | None = 1
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    body: bytes = b""
    after: int = 0
    ending: Ending = "rst"
    extra: int = 1
    seconds: float | None = None
    rate: int = 1
    seen: int = 0
    hits: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of fault: {self.kind} (there are: {sorted(KINDS)})")
        self._pattern = re.compile(self.match)

    def release(self) -> None:
        """Let every request that this fault holds go on."""
        self.released.set()

    def takes(self, where: str, method: str, target: str) -> bool:
        """Whether this request is one to spoil; counts it."""
        if where != self.where or (self.method and method != self.method):
            return False
        if not self._pattern.search(target):
            return False
        self.seen += 1
        if self.seen < self.nth or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True


def _status(fault: Fault, answer: Answer) -> None:
    """Answer with another status, headers and body."""
    answer.status = fault.status
    for name in ("Location", "Content-Range", "ETag", "Content-Encoding"):
        answer.headers.pop(name, None)
    answer.replace_body(fault.body or f"fault {fault.status}".encode())
    answer.headers.update(fault.headers)


def _headers(fault: Fault, answer: Answer) -> None:
    """Set and drop headers, leaving the rest."""
    dropped = {name.lower() for name in fault.drop}
    answer.headers = {k: v for k, v in answer.headers.items() if k.lower() not in dropped}
    answer.headers.update(fault.headers)


def _drop(fault: Fault, answer: Answer) -> None:
    """Close the connection instead of answering."""
    answer.status = 0
    answer.delivery.ending = fault.ending


def _cut(fault: Fault, answer: Answer) -> None:
    """Promise the whole body, send `after` bytes of it, close."""
    answer.delivery.stop_after = fault.after
    answer.delivery.ending = fault.ending


def _no_length(fault: Fault, answer: Answer) -> None:
    """Send without Content-Length; the end of the connection is the body's (early) end."""
    answer.headers.pop("Content-Length", None)
    answer.headers["Connection"] = "close"
    answer.delivery.stop_after = fault.after or None
    answer.delivery.ending = "fin"


def _chunked(fault: Fault, answer: Answer) -> None:
    """Send chunked; with `after`, end cleanly after so many bytes."""
    answer.headers.pop("Content-Length", None)
    answer.headers["Transfer-Encoding"] = "chunked"
    answer.delivery.chunked = True
    answer.delivery.stop_after = fault.after or None


def _long(fault: Fault, answer: Answer) -> None:
    """Send `extra` bytes more than were asked, and say nothing of the length."""
    body = answer.content.read(answer.start, answer.end) + b"\xee" * fault.extra
    answer.replace_body(body)
    answer.headers.pop("Content-Length", None)
    answer.headers["Connection"] = "close"
    answer.delivery.ending = "fin"


def _ignore_range(fault: Fault, answer: Answer) -> None:
    """Answer 200 with everything, whatever range was asked."""
    answer.status = 200
    answer.headers.pop("Content-Range", None)
    answer.start, answer.end = 0, answer.content.size
    answer.headers["Content-Length"] = str(answer.content.size)


def _slice_200(fault: Fault, answer: Answer) -> None:
    """Answer 200 to a range, with the slice and a right Content-Range."""
    answer.replace_range(answer.start, answer.end, answer.content.size)
    answer.status = 200


def _shifted(fault: Fault, answer: Answer) -> None:
    """Claim and send the range that begins one byte later."""
    answer.start = min(answer.start + 1, answer.content.size - 1)
    answer.end = min(answer.end + 1, answer.content.size)
    answer.replace_range(answer.start, answer.end, answer.content.size)
    answer.headers["Content-Length"] = str(answer.end - answer.start)


def _wrong_total(fault: Fault, answer: Answer) -> None:
    """Claim that the object is `extra` bytes longer than it is."""
    answer.replace_range(answer.start, answer.end, answer.content.size + fault.extra)


def _multipart(fault: Fault, answer: Answer) -> None:
    """Answer a single range as multipart/byteranges."""
    content_range = answer.headers.pop("Content-Range", "bytes */0")
    payload = answer.content.read(answer.start, answer.end)
    head = f"\r\n--SEP\r\nContent-Type: binary\r\nContent-Range: {content_range}\r\n\r\n"
    answer.replace_body(head.encode() + payload + b"\r\n--SEP--\r\n")
    answer.headers["Content-Type"] = "multipart/byteranges; boundary=SEP"


def _gzip(fault: Fault, answer: Answer) -> None:
    """Compress the whole object and ignore the range, as a CDN does that saw gzip allowed."""
    answer.status = 200
    answer.headers.pop("Content-Range", None)
    answer.replace_body(gzip.compress(answer.content.read(0, answer.content.size), 1))
    answer.headers["Content-Encoding"] = "gzip"


def _flip(fault: Fault, answer: Answer) -> None:
    """Flip one bit of the body, `after` bytes into it."""
    body = bytearray(answer.content.read(answer.start, answer.end))
    body[min(fault.after, len(body) - 1)] ^= 1
    answer.content, answer.start, answer.end = Content(bytes(body)), 0, len(body)


def _stall(fault: Fault, answer: Answer) -> None:
    """Send `after` bytes, then nothing for `seconds` (None: until released or closed)."""
    answer.delivery.stall_after = fault.after
    answer.delivery.stall_seconds = fault.seconds


def _trickle(fault: Fault, answer: Answer) -> None:
    """Send at `rate` bytes a second."""
    answer.delivery.rate = fault.rate


def _delay(fault: Fault, answer: Answer) -> None:
    """Wait `seconds` (None: until released or closed) before the answer's first byte."""
    answer.delivery.delay = True
    answer.delivery.stall_seconds = fault.seconds


KINDS: dict[str, Callable[[Fault, Answer], None]] = {
    "status": _status,
    "headers": _headers,
    "drop": _drop,
    "cut": _cut,
    "no_length": _no_length,
    "chunked": _chunked,
    "long": _long,
    "ignore_range": _ignore_range,
    "slice_200": _slice_200,
    "shifted": _shifted,
    "wrong_total": _wrong_total,
    "multipart": _multipart,
    "gzip": _gzip,
    "flip": _flip,
    "stall": _stall,
    "trickle": _trickle,
    "delay": _delay,
}


def apply(fault: Fault, answer: Answer) -> None:
    """Spoil an answer as the fault says."""
    KINDS[fault.kind](fault, answer)
