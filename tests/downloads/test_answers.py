"""Which answers to a byte request are believed."""

from __future__ import annotations

import pytest
from requests.structures import CaseInsensitiveDict

from llamactl.downloads.answers import (
    AnswerError,
    Busy,
    Changed,
    RangeIgnored,
    Refused,
    Wanted,
    WrongAnswer,
    body_offset,
)

PIECE = Wanted(100, 200, 1000)
WHOLE = Wanted(0, 1000, 1000, whole=True)
RIGHT = {"Content-Range": "bytes 100-199/1000", "Content-Length": "100"}


def offset(status: int, headers: dict[str, str], wanted: Wanted = PIECE) -> int:
    return body_offset(status, CaseInsensitiveDict(headers), wanted)


def test_a_request_asks_for_one_closed_range_of_plain_bytes() -> None:
    assert PIECE.headers == {"Accept-Encoding": "identity", "Range": "bytes=100-199"}
    assert WHOLE.headers == {"Accept-Encoding": "identity"}


@pytest.mark.parametrize("status", [200, 206])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"content-length": "100"},
        {"Content-Encoding": "identity"},
        {"Content-Type": "application/octet-stream"},
    ],
)
def test_the_range_that_was_asked_is_believed(status: int, changes: dict[str, str]) -> None:
    assert offset(status, {"content-range": RIGHT["Content-Range"], **changes}) == 100


@pytest.mark.parametrize("length", ["1000", None])
def test_the_whole_file_begins_at_its_first_byte(length: str | None) -> None:
    headers = {} if length is None else {"Content-Length": length}
    assert offset(200, headers, WHOLE) == 0


def test_a_range_of_everything_may_come_as_200() -> None:
    assert offset(200, {"Content-Length": "1000"}, Wanted(0, 1000, 1000)) == 0


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (206, {}, WrongAnswer),
        (206, {"Content-Range": "bytes 101-200/1000"}, WrongAnswer),
        (206, {"Content-Range": "bytes 100-198/1000"}, WrongAnswer),
        (206, {"Content-Range": "bytes 100-199/*"}, WrongAnswer),
        (206, {"Content-Range": "items 100-199/1000"}, WrongAnswer),
        (206, {"Content-Range": "bytes 100-199/1000, bytes 5-6/1000"}, WrongAnswer),
        (206, {"Content-Range": f"bytes 100-199/{'9' * 5000}"}, WrongAnswer),
        (206, {**RIGHT, "Content-Length": "99"}, WrongAnswer),
        (206, {**RIGHT, "Content-Length": "abc"}, WrongAnswer),
        (206, {**RIGHT, "Content-Encoding": "gzip"}, WrongAnswer),
        (206, {**RIGHT, "Content-Type": "multipart/byteranges; boundary=x"}, WrongAnswer),
        (206, {"Content-Range": "bytes 100-199/1001"}, Changed),
        (200, {"Content-Length": "1000"}, RangeIgnored),
        (200, {}, RangeIgnored),
        (200, {"Content-Length": "999"}, Changed),
        (200, {"Content-Range": "bytes 0-99/1000"}, WrongAnswer),
        (416, {"Content-Range": "bytes */500"}, Changed),
        (416, {"Content-Range": "bytes */1000"}, WrongAnswer),
        (416, {}, WrongAnswer),
        (204, {}, WrongAnswer),
        (418, {}, WrongAnswer),
        (302, {"Location": "https://elsewhere/"}, Refused),
        (400, {}, Refused),
        (403, {}, Refused),
        (404, {}, Refused),
        (410, {}, Refused),
        (408, {}, Busy),
        (429, {}, Busy),
        (500, {}, Busy),
        (503, {}, Busy),
    ],
)
def test_what_is_not_believed(
    status: int, headers: dict[str, str], kind: type[AnswerError]
) -> None:
    with pytest.raises(AnswerError) as caught:
        offset(status, headers)
    assert type(caught.value) is kind


def test_the_header_at_fault_is_named() -> None:
    with pytest.raises(WrongAnswer, match="Content-Encoding: br"):
        offset(206, {**RIGHT, "Content-Encoding": "br"})


@pytest.mark.parametrize(("status", "overloaded"), [(429, True), (503, True), (500, False)])
def test_only_an_overload_asks_for_fewer_connections(status: int, overloaded: bool) -> None:
    with pytest.raises(Busy) as caught:
        offset(status, {})
    assert caught.value.overloaded is overloaded
