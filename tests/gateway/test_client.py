"""The client's end of a request, and the wait on both ends at once."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator

import pytest

from llamactl.errors import UpstreamGone
from llamactl.gateway.client import ROOM, Client
from llamactl.gateway.exchange import ClientGone, Cut, Exchange

#: Seconds that only something that hangs takes.
PATIENCE = 60.0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's end of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def instance() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        yield listener


def wakes(client: Client) -> bool:
    """Whether a wait on the client ends, and says that it left."""
    poll = select.poll()
    client.watch(poll)
    return any(client.left(event) for _, event in poll.poll(PATIENCE * 1000))


def test_a_client_that_waits_is_there(pair: tuple[socket.socket, socket.socket]) -> None:
    client = Client(pair[0])
    assert not client.gone()
    assert client.takes(1)


def test_a_client_that_closed_is_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    client = Client(pair[0])
    pair[1].close()
    assert wakes(client)
    assert client.gone()


def test_a_client_that_sent_more_and_closed_is_gone(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client = Client(pair[0])
    pair[1].sendall(b"GET / HTTP/1.1\r\n")
    assert not wakes(client)
    pair[1].close()
    assert wakes(client)


def test_a_client_that_takes_nothing_is_noticed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    client = Client(ours)
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            ours.send(bytes(1 << 16))
    assert not client.takes(1, 0.05)
    theirs.close()
    assert not client.takes(1, PATIENCE)


@pytest.mark.parametrize("size", [200, ROOM])
def test_what_a_client_is_said_to_take_never_blocks(
    pair: tuple[socket.socket, socket.socket], size: int
) -> None:
    ours, _ = pair
    ours.setblocking(False)
    client = Client(ours)
    written = 0
    while client.takes(size, 0.05):
        assert ours.send(bytes(size)) == size
        written += 1
    assert written > 8


def test_a_client_that_cannot_be_seen_is_taken_to_be_there() -> None:
    client = Client(None)
    assert client.watch(select.poll()) is None
    assert not client.gone()
    assert client.takes(1)
    client.hang_up()


def test_a_large_request_to_a_busy_instance_ends_when_its_client_leaves(
    pair: tuple[socket.socket, socket.socket], instance: socket.socket
) -> None:
    host, port = instance.getsockname()
    exchange = Exchange(host, port, Client(pair[0]), PATIENCE)
    threading.Timer(0.1, pair[1].close).start()
    # The instance accepts nobody: its buffers are full long before all of this is sent.
    with pytest.raises(ClientGone):
        exchange.send("POST", "/", [], bytes(64 << 20))
    exchange.close()


def test_an_answer_that_comes_before_the_request_is_read_is_heard(
    instance: socket.socket,
) -> None:
    host, port = instance.getsockname()
    exchange = Exchange(host, port, Client(None), PATIENCE)
    upstream, _ = instance.accept()
    with upstream:
        upstream.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        head = exchange.send("POST", "/", [], bytes(64 << 20))
        assert head.status == 413
        assert exchange.ready() + exchange.read() == b"no"
    exchange.close()


def test_a_cut_wakes_whoever_waits(instance: socket.socket) -> None:
    host, port = instance.getsockname()
    exchange = Exchange(host, port, Client(None), PATIENCE)
    threading.Timer(0.1, exchange.cut).start()
    with pytest.raises(Cut):
        exchange.send("POST", "/", [], b"")
    with pytest.raises(Cut):
        exchange.send("POST", "/", [], b"")
    exchange.close()
    exchange.cut()


def test_nobody_who_listens_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
    with pytest.raises(UpstreamGone, match="refused"):
        Exchange(host, port, Client(None), PATIENCE)


def test_an_answer_may_end_with_its_connection(instance: socket.socket) -> None:
    host, port = instance.getsockname()
    exchange = Exchange(host, port, Client(None), PATIENCE)
    upstream, _ = instance.accept()
    with upstream:
        upstream.sendall(b"HTTP/1.0 200 OK\r\n\r\nsome")
        exchange.send("GET", "/", [], b"")
    body = exchange.ready()
    while piece := exchange.read():
        body += piece
    assert body == b"some"
    exchange.close()
