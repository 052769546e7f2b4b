"""Clients that send and read slowly on purpose, without any proxy in front of the server."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests

from llamactl.open_files import allow_open_files
from tests.e2e.conftest import Make
from tests.e2e.processes import PATIENCE, LlamactlProcess, wait_for

THREADS = 20
#: Twice what would take every thread, and those that may receive the rest of a refused body.
MANY = 2 * THREADS + 20
HOST = b"Host: 127.0.0.1\r\n"
#: Connections for which a server of so few threads has room.
ROOM = 1000
ASKED = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
FORM = HOST + b"Content-Type: application/x-www-form-urlencoded\r\n"
JSON = HOST + b"Content-Type: application/json\r\n"

BEGUN = {
    "nothing": b"",
    "a line": b"GET /healthz HT",
    "headers": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-More: ",
    "a form": b"POST /login HTTP/1.1\r\n" + FORM + b"Content-Length: 20000\r\n\r\nkey=",
    "a form whose length begins with many zeros": b"POST /login HTTP/1.1\r\n"
    + FORM
    + b"Content-Length: 00000000000000000000020000\r\n\r\nkey=",
    "a form that asks whether to come": b"POST /login HTTP/1.1\r\n"
    + FORM
    + b"Expect: 100-continue\r\nContent-Length: 20000\r\n\r\nkey=",
    "a large form": b"POST /login HTTP/1.1\r\n" + FORM + b"Content-Length: 900000\r\n\r\nkey=",
    "a form in chunks": b"POST /login HTTP/1.1\r\n"
    + FORM
    + b"Transfer-Encoding: chunked\r\n\r\nffff\r\nkey=",
    "a request without a key": b"POST /v1/embeddings HTTP/1.1\r\n"
    + JSON
    + b"Content-Length: 900000\r\n\r\n{",
    "a body that nobody wants": b"GET /healthz HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 900000\r\n\r\n",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamactlProcess]:
    running = LlamactlProcess(tmp_path_factory.mktemp("slow"), {"server.threads": THREADS})
    try:
        yield running.start()
    finally:
        running.kill_everything()


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """Whatever a test holds open until its end."""
    with ExitStack() as stack:
        yield stack


def connect(server: LlamactlProcess, held: ExitStack, sent: bytes = b"") -> socket.socket:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    held.enter_context(connection)
    connection.sendall(sent)
    return connection


def may_open_files(held: ExitStack) -> None:
    """Let this process connect that often, until the end of the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
    allow_open_files(2 * ROOM)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * ROOM:
        pytest.skip(f"this system does not let a test open {2 * ROOM} files")


def answers(server: LlamactlProcess) -> bool:
    return requests.get(f"{server.url}/healthz", timeout=PATIENCE).text == "ok\n"


def everything(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("begun", BEGUN)
def test_a_request_that_never_comes_whole_takes_no_thread(
    server: LlamactlProcess, held: ExitStack, begun: str
) -> None:
    connections = [connect(server, held, BEGUN[begun]) for _ in range(MANY)]
    for _ in range(3):
        assert answers(server)
        for connection in connections if BEGUN[begun] else ():
            # Some have been refused by now, and closed.
            with ExitStack() as gone:
                gone.push(lambda kind, *_: kind is not None and issubclass(kind, OSError))
                connection.send(b"a")
    assert answers(server)


def test_a_client_that_keeps_a_closed_connection_holds_up_nobody(
    server: LlamactlProcess, held: ExitStack
) -> None:
    last = b"GET /healthz HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    for connection in [connect(server, held, last) for _ in range(MANY)]:
        assert everything(connection).endswith(b"ok\n")
    # gunicorn would wait two seconds for each of them, one after the other.
    assert answers(server)


def test_more_idle_clients_than_there_is_room_for_keep_nobody_out(
    server: LlamactlProcess, held: ExitStack
) -> None:
    may_open_files(held)
    connections = [connect(server, held, ASKED) for _ in range(ROOM)]
    connections += [connect(server, held) for _ in range(ROOM // 2)]
    assert answers(server)
    newest = connections[-1]
    newest.sendall(ASKED)
    assert newest.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_who_asks_in_the_moment_of_being_sent_away_for_another_harms_nobody(
    make_server: Make, held: ExitStack
) -> None:
    may_open_files(held)
    server = make_server({"server.threads": THREADS}).start()
    kept = [connect(server, held, ASKED) for _ in range(ROOM - THREADS - 1)]
    fresh = [connect(server, held) for _ in range(THREADS)]
    fresh[-1].sendall(ASKED)
    for connection in [*kept, fresh[-1]]:
        received = b""
        while not received.endswith(b"ok\n"):
            some = connection.recv(65536)
            assert some, received
            received += some
    worker = server.worker
    # So that the worker hears of all of it in one turn, and of the newcomer first.
    os.kill(worker, signal.SIGSTOP)
    connect(server, held)
    for connection in kept:
        # Who rested for too long on a busy machine was sent away before.
        with suppress(OSError):
            connection.sendall(ASKED)
    os.kill(worker, signal.SIGCONT)
    assert answers(server)
    assert server.worker == worker


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked how it sees a process")
def test_the_server_may_open_as_many_files_as_it_needs(make_server: Make) -> None:
    server = make_server(command=limited("ulimit -Sn 256")).start()
    limits = Path(f"/proc/{server.worker}/limits").read_text().splitlines()
    (soft, hard) = next(line.split()[3:5] for line in limits if line.startswith("Max open files"))
    assert int(soft) == min(int(hard), 2 * 1024 + 1024)


def test_a_server_without_files_to_open_goes_on_with_whom_it_has(
    make_server: Make, held: ExitStack
) -> None:
    server = make_server({"server.threads": THREADS}, command=limited("ulimit -n 128")).start()
    worker = server.worker
    for _ in range(300):
        connect(server, held, b"GET /heal")
    assert answers(server)
    assert server.worker == worker


def limited(limit: str) -> tuple[str, ...]:
    return ("sh", "-c", f'{limit}; exec "$0" -m llamactl serve', sys.executable)


def test_headers_without_end_are_refused(server: LlamactlProcess, held: ExitStack) -> None:
    endless = b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-More: a\r\n" * 10_000
    connection = connect(server, held, endless)
    assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")


def test_who_asks_again_without_reading_takes_no_thread(
    server: LlamactlProcess, held: ExitStack
) -> None:
    asked = b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n"
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    for _ in range(MANY):
        connection = held.enter_context(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        # The system gives a connection of small segments little room.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 88)
        connection.settimeout(PATIENCE)
        connection.connect((host, int(port)))
        connection.sendall(asked * 4)
    assert answers(server)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
        b"POST /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nabcde",
        b"POST /healthz HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ],
    ids=["no body", "a body", "chunks"],
)
def test_a_request_may_come_in_any_pieces(
    server: LlamactlProcess, held: ExitStack, raw: bytes
) -> None:
    wanted = b" 200 " if raw.startswith(b"GET") else b" 405 "
    connection = connect(server, held)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for size in (1, 7, len(raw)):
        for start in range(0, len(raw), size):
            connection.sendall(raw[start : start + size])
        received = b""
        while not received.endswith((b"ok\n", b"}\n", b"}")):
            some = connection.recv(65536)
            assert some, received
            received += some
        assert wanted in received.splitlines()[0]


def test_requests_that_come_together_are_answered_in_their_order(
    server: LlamactlProcess, held: ExitStack
) -> None:
    asked = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    unknown = b"POST /v1/embeddings HTTP/1.1\r\n" + JSON + b"Content-Length: 2\r\n\r\n{}"
    last = b"GET /metrics HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    connection = connect(server, held, asked + unknown + asked + last)
    told = re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", everything(connection))
    assert told == [b"200", b"401", b"200", b"401"]


def test_half_a_request_of_a_client_that_left_is_dropped(
    server: LlamactlProcess, held: ExitStack
) -> None:
    connection = connect(server, held, b"GET /healthz HTTP/1.1\r\n")
    connection.shutdown(socket.SHUT_WR)
    assert b" 200 " not in everything(connection)
    assert answers(server)
    wait_for("the log to stay quiet", lambda: "Traceback" not in server.output)
