"""What a program writes becomes events: every line one, nothing lost, nothing unbounded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from llamactl.config import RESERVED_THREADS
from llamactl.errors import TooManyRequests
from llamactl.web.streams import LONGEST_LINE, MOST_STREAMS, PULSE, event_answer, event_stream


def lines_of(stream: bytes) -> list[str]:
    """What a reader of server-sent events gets, by the letter of their specification."""
    events: list[str] = []
    data: list[str] = []
    for line in stream.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            events.append("\n".join(data))
            data = []
    return events


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"o", b"ne\ntw", b"o\n"], ["one", "two"]),
        ([b"one\r\ntwo\r\n"], ["one", "two"]),
        ([b"one\r", b"\ntwo\n"], ["one", "two"]),
        ([b"no end"], ["no end"]),
        ([b"\n\n"], ["", ""]),
        (["Größe\n".encode()[:3], "Größe\n".encode()[3:]], ["Größe"]),
        ([b"bad \xff byte\n"], ["bad \ufffd byte"]),
        ([b"10%\r20%\r30%\n"], ["10%\n20%\n30%"]),
        ([b"data: x\nevent: y\n"], ["data: x", "event: y"]),
        ([], []),
    ],
)
def test_each_line_is_one_event_however_the_bytes_are_cut(
    chunks: list[bytes], lines: list[str]
) -> None:
    assert lines_of(b"".join(event_stream(chunks))) == lines


def test_an_empty_chunk_is_a_pulse_that_readers_ignore() -> None:
    sent = list(event_stream([b"a", b"", b"b\n"]))
    assert sent == [PULSE, PULSE, b"data: ab\n\n"]


def test_the_headers_need_not_wait_for_the_first_line() -> None:
    def refuse(_: int) -> bytes:
        raise AssertionError("asked for a line")

    assert next(event_stream(map(refuse, range(1)))) == PULSE


def test_a_line_without_end_is_broken_instead_of_kept() -> None:
    piece = b"x" * 1000
    sent = [len(part) for part in event_stream([piece] * 100)]
    assert max(sent) < 2 * LONGEST_LINE
    received = lines_of(b"".join(event_stream([piece] * 100)))
    assert "".join(received) == "x" * 100_000


@pytest.fixture
def asked() -> Iterator[None]:
    with Flask(__name__).test_request_context():
        yield


@pytest.mark.usefixtures("asked")
def test_what_feeds_the_stream_is_closed_when_the_reader_leaves() -> None:
    closed = []

    def feed() -> Iterator[bytes]:
        try:
            while True:
                yield b"line\n"
        finally:
            closed.append(True)

    answer = event_answer(feed())
    sent = iter(answer.response)
    assert [next(sent), next(sent)] == [PULSE, b"data: line\n\n"]
    answer.close()
    assert closed == [True]


@pytest.mark.usefixtures("asked")
def test_nothing_on_the_way_may_hold_a_stream_back() -> None:
    answer = event_answer([])
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert "no-transform" in answer.headers["Cache-Control"]
    assert answer.mimetype == "text/event-stream"


@pytest.mark.usefixtures("asked")
def test_streams_leave_threads_for_everything_else() -> None:
    answers = [event_answer([]) for _ in range(MOST_STREAMS)]
    with pytest.raises(TooManyRequests, match="logs are being followed"):
        event_answer([])
    for _ in range(2):
        answers[0].close()
    event_answer([])
    with pytest.raises(TooManyRequests):
        event_answer([])
    assert MOST_STREAMS < RESERVED_THREADS


def test_a_look_at_the_headers_of_a_stream_takes_no_place() -> None:
    app = Flask(__name__)
    for _ in range(MOST_STREAMS):
        with app.test_request_context(method="HEAD"):
            event_answer([])
    with app.test_request_context():
        event_answer([]).close()
