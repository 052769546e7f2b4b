"""Requests take turns until their instance is asked, and nobody waits behind one that waits."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from llamactl.gateway import exchange
from llamactl.gateway.client import Client
from llamactl.gateway.exchange import Exchange, NotListening
from llamactl.gateway.turns import Turn, Turns
from tests.gateway.conftest import PATIENCE, Serve, Served, chat, eventually


def line_up(turns: Turns, count: int) -> tuple[list[threading.Thread], list[int]]:
    """So many threads that wait in this order for their turn; the order in which they had it."""
    order: list[int] = []

    def work(number: int) -> None:
        with Turn(turns):
            order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        waiting = len(turns._line)
        thread.start()
        eventually(lambda: len(turns._line) > waiting)  # noqa: B023  # called before the next round
    return threads, order


def test_turns_are_had_in_the_order_of_coming() -> None:
    turns = Turns()
    with Turn(turns):
        threads, order = line_up(turns, 20)
        assert order == []
    for thread in threads:
        thread.join(PATIENCE)
    assert order == list(range(20))


def test_a_turn_ends_once_and_lets_one_in() -> None:
    turns = Turns()
    first = Turn(turns)
    with first:
        threads, order = line_up(turns, 1)
        first.end()
        threads[0].join(PATIENCE)
        assert order == [0]
        with Turn(turns):
            threads, order = line_up(turns, 1)
            first.end()
            assert order == []
    threads[0].join(PATIENCE)
    assert order == [0]


def test_whatever_goes_wrong_ends_a_turn() -> None:
    turns = Turns()
    with pytest.raises(RuntimeError), Turn(turns):
        raise RuntimeError
    with Turn(turns):
        pass


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What looks like an instance and takes no connection by itself."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as made:
        yield made


def beside(serve: Serve, listener: socket.socket) -> Served:
    """A gateway with ``listener`` as its second instance."""
    port = listener.getsockname()[1]
    return serve(({"id": 2, "name": "odd", "port": port},))


def ask(served: Served, **fields: object) -> int:
    return served.call("POST", "/v1/chat/completions", chat(**fields))[0]


def test_a_turn_ends_before_a_connection_is_waited_for(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "CONNECT_SECONDS", 0.01)
    turns = Turns()
    port = listener.getsockname()[1]
    with ExitStack() as held:
        # Until the system keeps no more of them for it.
        for _ in range(3):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        with Turn(turns) as turn:
            with pytest.raises(NotListening):
                Exchange("127.0.0.1", port, Client(None), PATIENCE, turn.end)
            # The next one would wait for ever.
            with Turn(turns):
                pass


def test_nobody_waits_behind_a_request_that_its_instance_does_not_take(
    serve: Serve, listener: socket.socket
) -> None:
    served = beside(serve, listener)
    message = {"role": "user", "content": "x" * (16 << 20)}
    waiting = served.stream(chat(model="odd", messages=[message]))
    connection, _ = listener.accept()
    with connection:
        assert connection.recv(1)
        assert ask(served) == 200
        assert served.state()["in_flight"] == 1
        waiting.close()
        served.settled()


def test_nobody_waits_behind_a_request_that_is_not_answered(
    serve: Serve, listener: socket.socket
) -> None:
    served = beside(serve, listener)
    waiting = served.stream(chat(model="odd"))
    connection, _ = listener.accept()
    with connection:
        assert connection.recv(1)
        assert ask(served) == 200
        assert served.state()["in_flight"] == 1
        waiting.close()
        served.settled()


def test_nobody_waits_behind_a_request_whose_instance_starts(serve: Serve) -> None:
    asleep = {"id": 2, "name": "asleep", "port": 1, "status": "starting"}
    served = serve((asleep,), instances__on_demand_start_timeout=600)
    waiting = served.stream(chat(model="asleep"))
    eventually(lambda: served.state()["waiting"] == 1)
    assert ask(served) == 200
    assert served.state()["waiting"] == 1
    waiting.close()
    served.settled()
