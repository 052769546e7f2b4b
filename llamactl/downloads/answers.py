"""Which answers to a request for bytes are believed, and what the others mean. Pure.

A range is accepted only from a 206 that says exactly what was asked. Everything else is sorted
by what helps: ask again, wait, resolve the address anew, or take the file as one stream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,19})", re.ASCII)
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
#: What a CDN says of an address that it does not honour (any more).
_REFUSING = frozenset({301, 302, 303, 307, 308, 400, 401, 403, 404, 410})


class AnswerError(Exception):
    """The answer brings no bytes that can be used."""


class WrongAnswer(AnswerError):
    """It is not what was asked for; another try may bring the right one."""


class RangeIgnored(AnswerError):
    """The whole file comes from its first byte, whatever range was asked for."""


class Changed(AnswerError):
    """The object has another size than the file that is wanted."""


class Refused(AnswerError):
    """The address is not honoured (any more); the hub has to be asked for a new one."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Busy(AnswerError):
    """The server has no time for this now; ``wait``: for how many seconds, where it said so."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        self.wait: float | None = None

    @property
    def overloaded(self) -> bool:
        """Whether fewer connections would help."""
        return self.status in (429, 503)


@dataclass(frozen=True)
class Wanted:
    """The bytes ``[start, end)`` of an object of ``size`` bytes; ``whole``: asked without a range.

    All of a file may be asked for without a range.
    """

    start: int
    end: int
    size: int
    whole: bool = False

    @property
    def headers(self) -> dict[str, str]:
        # Compressed content cannot be told from the file's own bytes, and a CDN that may compress
        # ignores ranges.
        headers = {"Accept-Encoding": "identity"}
        if not self.whole:
            headers["Range"] = f"bytes={self.start}-{self.end - 1}"
        return headers


def body_offset(status: int, headers: Mapping[str, str], wanted: Wanted) -> int:
    """Where in the file the answer's body begins; raises an ``AnswerError`` otherwise.

    ``headers`` must find names without regard to case.
    """
    if status in _BUSY:
        raise Busy(f"the server answered {status}", status)
    if status in _REFUSING:
        raise Refused(f"the server answered {status}", status)
    if status == 416:
        raise _unsatisfied(headers, wanted)
    if status not in (200, 206):
        raise WrongAnswer(f"the server answered {status}")
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise WrongAnswer(f"the server sent Content-Encoding: {encoding[:40]}, which was not asked")
    if headers.get("Content-Type", "").lower().startswith("multipart/"):
        raise WrongAnswer("the server sent several ranges where one was asked")
    if status == 206 or "Content-Range" in headers:
        _check_range(headers, wanted)
        return wanted.start
    _check_whole(headers, wanted)
    return 0


def _unsatisfied(headers: Mapping[str, str], wanted: Wanted) -> AnswerError:
    match = _UNSATISFIED.fullmatch(headers.get("Content-Range", "").strip())
    if match and int(match[1]) != wanted.size:
        return Changed(f"the server's file has {match[1]} bytes, not {wanted.size}")
    return WrongAnswer("the server answered 416 to a range within the file")


def _check_range(headers: Mapping[str, str], wanted: Wanted) -> None:
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None:
        raise WrongAnswer("the server sent a part without saying which (Content-Range)")
    start, last, size = (int(group) for group in match.groups())
    if size != wanted.size:
        raise Changed(f"the server's file has {size} bytes, not {wanted.size}")
    if (start, last) != (wanted.start, wanted.end - 1):
        raise WrongAnswer(
            f"the server sent bytes {start}-{last}, not {wanted.start}-{wanted.end - 1}"
        )
    length = headers.get("Content-Length")
    if length is not None and length.strip() != str(wanted.end - wanted.start):
        raise WrongAnswer("the server's Content-Length does not fit its Content-Range")


def _check_whole(headers: Mapping[str, str], wanted: Wanted) -> None:
    length = headers.get("Content-Length")
    if length is not None and length.strip() != str(wanted.size):
        raise Changed(f"the server's file has {length.strip()[:20]} bytes, not {wanted.size}")
    everything = (wanted.start, wanted.end) == (0, wanted.size)
    if not wanted.whole and not everything:
        raise RangeIgnored("the server sent the whole file where a range was asked")
