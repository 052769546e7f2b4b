"""Server-sent events made of what a program writes."""

from __future__ import annotations

import codecs
import threading
from collections.abc import Callable, Iterable, Iterator

from flask import Response, current_app, request

from llamactl.config import RESERVED_THREADS
from llamactl.errors import TooManyRequests
from llamactl.instances.logfiles import Cut
from llamactl.web.answers import text_answer

LONGEST_LINE = 16 * 1024
PULSE = b": \n\n"
#: Streams at a time. Each holds a request thread for as long as somebody looks, out of those that
#: inference leaves alone: the other half of these is for pages, health and management.
MOST_STREAMS = RESERVED_THREADS // 2

EXTENSION = "llamactl_streams"


def event_stream(chunks: Iterable[bytes], shown: Callable[[str], str] = str) -> Iterator[bytes]:
    """One event for each line in ``chunks``, as ``shown`` makes it; an empty chunk is a pulse.

    Bytes that are no UTF-8 become replacement characters. A line of more than ``LONGEST_LINE``
    characters is broken, so that a program that never ends a line costs no memory. The pulse is a
    comment that readers ignore: writing it is how the server learns that nobody reads any more. One
    comes first, because a server sends the headers with the first bytes.
    """
    yield PULSE
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for chunk in chunks:
        if not chunk:
            yield PULSE
            continue
        *lines, rest = (rest + decoder.decode(chunk)).replace("\r\n", "\n").split("\n")
        while len(rest) > LONGEST_LINE:
            lines.append(rest[:LONGEST_LINE])
            rest = rest[LONGEST_LINE:]
        if lines:
            yield b"".join(_event(shown(line)) for line in lines)
    rest += decoder.decode(b"", final=True)
    if rest:
        yield _event(shown(rest))


def event_answer(chunks: Iterable[bytes], shown: Callable[[str], str] = str) -> Response:
    """``event_stream`` as an answer that nothing on its way may hold back or keep.

    Raises ``TooManyRequests`` where ``MOST_STREAMS`` are being read.
    """
    leave = _enter()
    answer = Response(event_stream(chunks, shown), mimetype="text/event-stream")
    answer.headers["Cache-Control"] = "no-store, no-transform"
    answer.headers["X-Accel-Buffering"] = "no"
    answer.call_on_close(leave)
    close = getattr(chunks, "close", None)
    if close is not None:
        # A generator's finally may never run where a server drops it; this always does.
        answer.call_on_close(close)
    return answer


class _Places:
    """How many streams are being read. Thread-safe."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.taken = 0


def _enter() -> Callable[[], None]:
    """Count one more stream; gives what counts it out, once."""
    places: _Places = current_app.extensions.setdefault(EXTENSION, _Places())
    # The answer to a HEAD has no body, so nobody ever closes it.
    counts = [request.method != "HEAD"]
    with places.lock:
        if counts[0] and places.taken >= MOST_STREAMS:
            raise TooManyRequests(
                f"{places.taken} logs are being followed, as many as may be at the same time",
                hint="Close one of them, or read the log without following it.",
                retry_after=5,
            )
        places.taken += counts[0]

    def leave() -> None:
        with places.lock:
            places.taken -= counts[0]
            counts[0] = False

    return leave


def log_answer(log: Cut) -> Response:
    """A whole log as plain text, read while it is sent."""
    answer = text_answer(log.pieces())
    answer.content_length = log.size
    answer.call_on_close(log.close)
    return answer


def _event(line: str) -> bytes:
    # A carriage return would end the line in the reader's eyes, and with it the event's field.
    return b"data: " + line.replace("\r", "\n").replace("\n", "\ndata: ").encode() + b"\n\n"
