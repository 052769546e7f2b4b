from __future__ import annotations

import random
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from llamactl.errors import Unavailable
from llamactl.instances import ports as ports_module
from llamactl.instances.ports import Ports
from tests.ports import instance_ports


@pytest.fixture
def first() -> int:
    """The first of fifty ports on which nobody listens."""
    low, high = map(int, instance_ports(22600, 22999).split("-"))
    for base in random.sample(range(low, high - 50, 50), 6):
        if all(ports_module._is_free("0.0.0.0", base + offset) for offset in range(50)):
            return base
    pytest.fail("no fifty free ports in a row")


def test_no_port_is_given_twice_to_many_at_once(first: int) -> None:
    ports = Ports(first, first + 49)
    with ThreadPoolExecutor(16) as pool:
        given = list(pool.map(lambda _: ports.reserve(), range(40)))
    rest = [ports.reserve() for _ in range(10)]
    assert len({*given, *rest}) == 50


def test_a_port_that_somebody_listens_on_is_not_given(first: int) -> None:
    with socket.create_server(("127.0.0.1", first)):
        assert Ports(first, first + 1).reserve() == first + 1


def test_a_listener_on_every_address_counts_too(first: int) -> None:
    with socket.create_server(("0.0.0.0", first)):
        assert Ports(first, first + 1).reserve() == first + 1


def test_a_port_whose_last_connection_is_in_time_wait_is_given(first: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", first))
        listener.listen()
        with socket.create_connection(("127.0.0.1", first)) as client:
            served, _ = listener.accept()
            # Who closes first keeps the connection in TIME_WAIT.
            served.close()
            assert client.recv(1) == b""
    assert Ports(first, first).reserve() == first


def test_an_exhausted_range_is_said_to_be(first: int) -> None:
    ports = Ports(first, first)
    ports.reserve()
    with pytest.raises(Unavailable, match=f"no port of {first} to {first}") as caught:
        ports.reserve()
    assert "instances.port_range" in caught.value.hint


def test_a_port_that_was_just_given_back_is_taken_last(first: int) -> None:
    ports = Ports(first, first + 2)
    given = ports.reserve()
    ports.release(given)
    ports.release(given)
    assert [ports.reserve(), ports.reserve()] == [first + 1, first + 2]
    assert ports.reserve() == given == first


def test_an_unwanted_port_is_taken_last(first: int) -> None:
    ports = Ports(first, first + 1)
    assert ports.reserve(avoid=[first]) == first + 1
    assert ports.reserve(avoid=[first]) == first
