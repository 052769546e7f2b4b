"""The shared limit, by a clock that the test moves."""

from __future__ import annotations

import threading

from llamactl.downloads.bandwidth import Bandwidth
from tests.downloads.waiting import LONG

MIB = 1 << 20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        # Each look moves time on, as a wait would.
        self.now += 0.01
        return self.now


def test_without_a_limit_everything_is_granted_at_once() -> None:
    assert Bandwidth().take(MIB, threading.Event()) == MIB


def test_a_limit_is_kept_over_time() -> None:
    clock = Clock()
    bandwidth = Bandwidth(1_000_000, clock)
    halt = threading.Event()
    granted = 0
    while clock.now < 2.0:
        granted += bandwidth.take(MIB, halt)
    assert 1_500_000 <= granted <= 2_200_000


def test_small_wishes_are_granted_in_full() -> None:
    bandwidth = Bandwidth(1_000_000, Clock())
    assert bandwidth.take(10, threading.Event()) == 10


def test_what_did_not_arrive_can_be_given_back() -> None:
    clock = Clock()
    bandwidth = Bandwidth(1_000_000, clock)
    halt = threading.Event()
    first = bandwidth.take(MIB, halt)
    bandwidth.give_back(first)
    assert bandwidth.take(MIB, halt) >= first


def test_a_halt_ends_the_wait() -> None:
    halt = threading.Event()
    halt.set()
    assert Bandwidth(1).take(MIB, halt) == 0


def test_lifting_the_limit_ends_the_wait() -> None:
    bandwidth = Bandwidth(1)
    granted: list[int] = []
    waiting = threading.Thread(
        target=lambda: granted.append(bandwidth.take(MIB, threading.Event()))
    )
    waiting.start()
    bandwidth.set_limit(None)
    waiting.join(LONG)
    assert granted == [MIB]
    assert bandwidth.limit is None
