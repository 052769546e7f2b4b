from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from llamactl.errors import Unavailable
from llamactl.instances.ports import Ports

FIRST = 20500


def test_no_port_is_given_twice_to_many_at_once() -> None:
    ports = Ports(FIRST, FIRST + 99)
    with ThreadPoolExecutor(16) as pool:
        given = list(pool.map(lambda _: ports.reserve(), range(50)))
    assert len(set(given)) == 50 == len(ports.reserved())


def test_a_port_that_somebody_listens_on_is_not_given() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", FIRST))
        other.listen()
        assert Ports(FIRST, FIRST + 1).reserve() == FIRST + 1


def test_a_listener_on_every_address_counts_too() -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", FIRST))
        other.listen()
        assert Ports(FIRST, FIRST + 1).reserve() == FIRST + 1


def test_an_exhausted_range_is_said_to_be() -> None:
    ports = Ports(FIRST, FIRST)
    ports.reserve()
    with pytest.raises(Unavailable, match=f"no port of {FIRST} to {FIRST}") as caught:
        ports.reserve()
    assert "instances.port_range" in caught.value.hint


def test_a_port_that_was_just_given_back_is_taken_last() -> None:
    ports = Ports(FIRST, FIRST + 2)
    first = ports.reserve()
    ports.release(first)
    ports.release(first)
    assert [ports.reserve(), ports.reserve()] == [FIRST + 1, FIRST + 2]
    assert ports.reserve() == first


def test_an_unwanted_port_is_taken_last() -> None:
    ports = Ports(FIRST, FIRST + 1)
    assert ports.reserve(avoid=[FIRST]) == FIRST + 1
    assert ports.reserve(avoid=[FIRST]) == FIRST
