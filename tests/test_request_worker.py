"""A thread stays for a moment with the client that it answered."""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from llamactl import request_worker
from llamactl.request_threads import RequestThreads
from llamactl.request_worker import AT_REST, Connection, RequestWorker
from tests.e2e.processes import wait_for

#: Seconds that only something that hangs takes.
PATIENCE = 30.0
REQUEST = b"GET /%d HTTP/1.1\r\nHost: here\r\n\r\n"


def path_of(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """An application that answers with the path that it was asked for."""
    told = environ["PATH_INFO"].encode()
    start("200 OK", [("Content-Length", str(len(told)))])
    return [told]


MakeWorker = Callable[[int], RequestWorker]


@pytest.fixture
def make_worker() -> Iterator[MakeWorker]:
    """A worker with so many threads, whose loop does not run."""
    made: list[RequestWorker] = []

    def make(threads: int) -> RequestWorker:
        settings = Config()
        worker = RequestWorker(0, 0, [], SimpleNamespace(), 30, settings, Logger(settings))
        worker.wsgi = path_of
        worker.tpool = RequestThreads(threads)
        made.append(worker)
        wait_for("all threads to rest", lambda: worker.tpool.at_rest() == threads)
        return worker

    yield make
    for worker in made:
        worker.tpool.shutdown()
        worker.tmp.close()


@pytest.fixture
def patient(make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch) -> RequestWorker:
    """One whose threads stay with a client for as long as a busy machine takes."""
    monkeypatch.setattr(request_worker, "STAYING_SECONDS", PATIENCE)
    return make_worker(AT_REST + 4)


class Client:
    """A client's connection, and the thread that answers it."""

    def __init__(self, worker: RequestWorker, sent: bytes) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        self.connection = Connection(worker, theirs, ("127.0.0.1", 1), ("127.0.0.1", 2))
        self.socket.sendall(sent)
        self.connection.begin()
        self.connection.take()
        self.connection.hand_to_parser()
        self.kept = worker.tpool.submit(worker.handle, self.connection)

    def answer(self, length: int = 2) -> bytes:
        """The body of the next answer."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.socket.recv(1)
        return self.socket.recv(length, socket.MSG_WAITALL)

    def close(self) -> None:
        self.socket.close()
        self.connection.close()


Connect = Callable[[RequestWorker, bytes], Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Have a client send something; it goes when the test is done."""
    with ExitStack() as stack:

        def make(worker: RequestWorker, sent: bytes) -> Client:
            client = Client(worker, sent)
            stack.callback(client.close)
            return client

        yield make


def test_a_request_that_follows_at_once_is_answered_without_the_loop(
    patient: RequestWorker, connect: Connect
) -> None:
    client = connect(patient, REQUEST % 1)
    for number in range(1, 6):
        assert client.answer() == b"/%d" % number
        client.socket.sendall(REQUEST % (number + 1))
    assert client.answer() == b"/6"
    client.socket.shutdown(socket.SHUT_WR)
    assert client.kept.result(PATIENCE)


def test_requests_that_were_sent_together_are_answered_in_order(
    patient: RequestWorker, connect: Connect
) -> None:
    client = connect(patient, b"".join(REQUEST % number for number in range(10)))
    assert [client.answer() for _ in range(10)] == [b"/%d" % number for number in range(10)]
    client.socket.shutdown(socket.SHUT_WR)
    assert client.kept.result(PATIENCE)


def test_a_part_of_a_request_is_left_to_the_loop(patient: RequestWorker, connect: Connect) -> None:
    client = connect(patient, REQUEST % 1)
    assert client.answer() == b"/1"
    client.socket.sendall(b"GET /2 HT")
    assert client.kept.result(PATIENCE) is True
    client.connection.begin()
    assert client.connection.coming == b"GET /2 HT"


def test_no_thread_stays_where_few_are_at_rest(
    make_worker: MakeWorker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_worker, "STAYING_SECONDS", 100 * PATIENCE)
    client = connect(make_worker(AT_REST), REQUEST % 1)
    assert client.answer() == b"/1"
    assert client.kept.result(PATIENCE) is True


def test_no_thread_stays_with_a_client_that_is_silent(
    make_worker: MakeWorker, connect: Connect
) -> None:
    client = connect(make_worker(AT_REST + 4), REQUEST % 1)
    assert client.answer() == b"/1"
    assert client.kept.result(PATIENCE) is True


def test_a_worker_that_stops_stays_with_nobody(patient: RequestWorker, connect: Connect) -> None:
    answering = threading.Event()

    def stop_meanwhile(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        patient.alive = False
        answering.set()
        return path_of(environ, start)

    patient.wsgi = stop_meanwhile
    client = connect(patient, REQUEST % 1)
    assert answering.wait(PATIENCE)
    assert client.answer() == b"/1"
    assert client.kept.result(PATIENCE) is True


@pytest.mark.parametrize(
    ("header", "waited_for"),
    [
        (b"Content-Length: 5", 5),
        (b"content-length:\t05 ", 5),
        (b"Content-Length: " + b"0" * 5000 + b"5", 5),
        (b"Content-Length: 65536", 65536),
        (b"Content-Length: 65537", None),
        (b"Content-Length: " + b"9" * 5000, None),
        (b"Content-Length: 1" + b"0" * 18, None),
        (b"Content-Length: \xb2", None),
        (b"Content-Length : 5", None),
        (b"Expect: 100-continue\r\nContent-Length: 5", None),
        (b"Transfer-Encoding: chunked", None),
        (b"X-Content-Length: 5", 0),
    ],
)
def test_a_body_is_waited_for_only_where_its_length_is_sure(
    make_worker: MakeWorker, header: bytes, waited_for: int | None
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(make_worker(1), theirs, ("127.0.0.1", 1), ("127.0.0.1", 2))
        ours.sendall(b"POST / HTTP/1.1\r\n" + header + b"\r\n\r\n")
        connection.begin()
        connection.take()
        assert connection.has_come() is (not waited_for)
        assert connection.came_whole is (waited_for is not None)
        for _ in range(waited_for or 0):
            assert not connection.has_come()
            ours.sendall(b"a")
            connection.take()
        assert connection.has_come()


def test_a_client_that_was_silent_before_its_tls_is_closed(make_worker: MakeWorker) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        worker = make_worker(1)
        connection = Connection(worker, theirs, ("127.0.0.1", 1), ("127.0.0.1", 2))
        # As gunicorn does once a thread has waited in vain for its first bytes.
        connection.timeout = time.monotonic()
        worker.nr_conns = 1
        worker.pending_conns.append(connection)
        with selectors.DefaultSelector() as worker.poller:
            worker.poller.register(theirs, selectors.EVENT_READ)
            worker.murder_pending()
        assert worker.nr_conns == 0
        assert theirs.fileno() == -1


@pytest.mark.parametrize("chunks", [b"zz\r\n", b"1\r\naXX0\r\n\r\n", b"0\r\nHost: other\r\n\r\n"])
def test_a_request_whose_body_turns_out_broken_has_one_answer(
    make_worker: MakeWorker, connect: Connect, chunks: bytes
) -> None:
    request = b"GET /1 HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = connect(make_worker(1), request + chunks)
    assert client.answer() == b"/1"
    assert client.kept.result(PATIENCE) is False
    client.connection.close()
    assert client.socket.recv(1) == b""


@pytest.mark.parametrize("number", [errno.EPERM, errno.EPROTO, errno.EHOSTUNREACH, errno.EAGAIN])
def test_a_client_that_is_gone_again_ends_no_worker(make_worker: MakeWorker, number: int) -> None:
    class Listener(socket.socket):
        def accept(self) -> NoReturn:
            raise OSError(number, "what Linux tells of it")

    worker = make_worker(1)
    with Listener() as listener:
        worker.accept(listener)
    assert worker.nr_conns == 0
