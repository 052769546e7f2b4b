"""Work that can be left, and pauses that can be ended."""

from __future__ import annotations

import threading
import time

import pytest

from llamactl.errors import Interrupted, NetworkError
from llamactl.hub.waiting import Abandonable, pause


def test_work_gives_its_result() -> None:
    assert Abandonable(lambda abandoned: abandoned.is_set()).run(None, 60) is False


def test_work_that_fails_fails_where_it_is_waited_for() -> None:
    def fail(abandoned: threading.Event) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        Abandonable(fail).run(threading.Event(), 60)


def test_work_that_takes_too_long_is_left_and_told_so() -> None:
    told = threading.Event()

    def endless(abandoned: threading.Event) -> None:
        if abandoned.wait(60):
            told.set()

    with pytest.raises(NetworkError, match="too long"):
        Abandonable(endless).run(None, 0.01)
    assert told.wait(60)


def test_work_that_is_halted_is_left_and_told_so() -> None:
    told, halt = threading.Event(), threading.Event()

    def endless(abandoned: threading.Event) -> None:
        halt.set()
        if abandoned.wait(60):
            told.set()

    with pytest.raises(Interrupted):
        Abandonable(endless).run(halt, 60)
    assert told.wait(60)


def test_a_pause_lasts_unless_it_is_halted() -> None:
    halt = threading.Event()
    started = time.monotonic()
    pause(0.05, halt)
    pause(0.05, None)
    assert time.monotonic() - started >= 0.1
    halt.set()
    with pytest.raises(Interrupted):
        pause(3600, halt)
