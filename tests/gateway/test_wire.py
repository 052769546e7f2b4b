"""Answers are read from bytes that come in any pieces, and broken ones are known as such."""

from __future__ import annotations

import random

import pytest

from llamactl.gateway.wire import Chunked, Counted, Head, Malformed, framing_of, split_head

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nX: 1\r\nX: 2\r\n\r\n"


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return body + b"0\r\n\r\n"


def test_a_head_is_whole_only_at_its_blank_line() -> None:
    for cut in range(len(HEAD)):
        assert split_head(HEAD[:cut]) is None
    split = split_head(HEAD + b"body")
    assert split == (Head(200, [("Content-Type", "a/b"), ("X", "1"), ("X", "2")]), b"body")


def test_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    assert split_head(interim) is None
    split = split_head(interim + HEAD)
    assert split is not None
    assert split[0].status == 200
    assert split_head(b"HTTP/1.1 100 \r\n\r\n" * 2_000 + HEAD) == split_head(HEAD)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 99 x\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"x" * 100_000,
        b"HTTP/1.1 100 \r\n\r\n" * 5_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: folded\r\n line\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : space\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nnothing\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: 1\n\r\n\r\n",
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_what_is_no_answer_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        split_head(raw)


def head(*headers: tuple[str, str], status: int = 200) -> Head:
    return Head(status, list(headers))


def test_the_body_of_a_known_length_ends_there() -> None:
    framing, length = framing_of("POST", head(("Content-Length", "5")))
    assert length == 5
    assert framing.feed(b"abc") == b"abc"
    assert not framing.done
    assert not framing.whole_at_end()
    assert framing.feed(b"defgh") == b"de"
    assert framing.done


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", head(("Content-Length", "5"))),
        ("GET", head(("Content-Length", "5"), status=304)),
        ("POST", head(status=204)),
        ("POST", head(("Content-Length", "0"))),
    ],
)
def test_some_answers_have_no_body(method: str, answer: Head) -> None:
    framing, _ = framing_of(method, answer)
    assert framing.done


def test_without_a_length_the_connection_ends_the_body() -> None:
    framing, length = framing_of("GET", head())
    assert length is None
    assert framing.feed(b"abc") == b"abc"
    assert not framing.done
    assert framing.whole_at_end()


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Length", "+5")],
        [("Content-Length", "-1")],
        [("Content-Length", "5, 5")],
        [("Content-Length", "5"), ("Content-Length", "6")],
        [("Transfer-Encoding", "gzip, chunked")],
        [("Transfer-Encoding", "identity")],
    ],
)
def test_a_frame_that_cannot_be_known_is_malformed(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(Malformed):
        framing_of("GET", head(*headers))


def test_chunks_are_whole_in_whatever_pieces_they_come() -> None:
    rng = random.Random(3)
    for _ in range(300):
        pieces = [rng.randbytes(rng.choice([1, 2, 9, 300])) for _ in range(rng.randrange(1, 6))]
        raw = chunked(*pieces)
        framing, payload, at = Chunked(), b"", 0
        while at < len(raw):
            assert not framing.done
            step = rng.choice([1, 2, 3, 50, 1000])
            payload += framing.feed(raw[at : at + step])
            at += step
        assert framing.done
        assert payload == b"".join(pieces)


def test_each_chunk_leaves_as_soon_as_it_is_there() -> None:
    framing = Chunked()
    assert framing.feed(b"5\r\nhel") == b"hel"
    assert framing.feed(b"lo\r\n") == b"lo"
    assert framing.feed(b"1;name=value\r\n!\r\n0\r\n") == b"!"
    assert not framing.done
    assert framing.feed(b"Trailer: x\r\n\r\n") == b""
    assert framing.done


def test_a_body_that_stops_between_chunks_is_not_whole() -> None:
    framing = Chunked()
    framing.feed(b"5\r\nhello\r\n")
    assert not framing.whole_at_end()


@pytest.mark.parametrize(
    "raw",
    [b"x\r\n", b"\r\n", b"-5\r\n", b"0x5\r\n", b"5\r\nhello!!", b"f" * 16 + b"\r\n", b"1" * 9000],
)
def test_chunks_without_sense_are_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        Chunked().feed(raw)


def test_nothing_behind_a_known_length_is_taken_for_the_body() -> None:
    assert Counted(3).feed(b"abcHTTP/1.1 200 OK") == b"abc"
