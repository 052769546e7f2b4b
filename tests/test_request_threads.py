"""The threads that answer requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from llamactl.request_threads import RequestThreads

#: Seconds that only something that hangs takes.
PATIENCE = 60.0


@pytest.fixture
def pool() -> Iterator[RequestThreads]:
    before = request_threads()
    made = RequestThreads(4)
    mine = [each for each in request_threads() if each not in before]
    yield made
    made.shutdown()
    for thread in mine:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def request_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "request"]


def all_rest(pool: RequestThreads) -> None:
    """Return once nobody has anything to do."""
    deadline = time.monotonic() + PATIENCE
    while pool.at_rest() < 4:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_all_threads_are_there_from_the_start() -> None:
    before = request_threads()
    pool = RequestThreads(4)
    assert len([each for each in request_threads() if each not in before]) == 4
    pool.shutdown()


def test_requests_beyond_the_threads_are_answered_once_one_is_free(pool: RequestThreads) -> None:
    gate = threading.Event()
    held = [pool.submit(gate.wait, PATIENCE) for _ in range(4)]
    done: list[int] = []
    waiting = [pool.submit(done.append, number) for number in range(50)]
    assert not done
    gate.set()
    assert all(each.result(PATIENCE) for each in held)
    for each in waiting:
        each.result(PATIENCE)
    assert sorted(done) == list(range(50))


def test_requests_wait_in_the_order_in_which_they_came() -> None:
    pool = RequestThreads(1)
    gate = threading.Event()
    pool.submit(gate.wait, PATIENCE)
    done: list[int] = []
    waiting = [pool.submit(done.append, number) for number in range(50)]
    gate.set()
    waiting[-1].result(PATIENCE)
    pool.shutdown()
    assert done == list(range(50))


def test_the_thread_that_rested_least_goes_first(pool: RequestThreads) -> None:
    used = set()
    for _ in range(50):
        # One that has just told its result may not rest yet.
        all_rest(pool)
        used.add(pool.submit(threading.get_ident).result(PATIENCE))
    assert len(used) == 1


def test_what_a_request_raises_reaches_whoever_asks_for_its_result(pool: RequestThreads) -> None:
    future = pool.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        future.result(PATIENCE)
    assert pool.submit(lambda: "still here").result(PATIENCE) == "still here"


def test_a_shutdown_ends_all_threads_after_what_waits(pool: RequestThreads) -> None:
    gate = threading.Event()
    futures = [pool.submit(gate.wait, PATIENCE) for _ in range(6)]
    mine = request_threads()
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(gate.wait, PATIENCE)
    gate.set()
    assert all(each.result(PATIENCE) for each in futures)
    for thread in mine:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_system_that_gives_fewer_threads_is_served_with_those(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = threading.Thread.start
    begun: list[threading.Thread] = []

    def scarce(thread: threading.Thread) -> None:
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    pool = RequestThreads(100)
    assert "2 of 100 request threads" in caplog.text
    assert [pool.submit(lambda: 1).result(PATIENCE) for _ in range(10)] == [1] * 10
    pool.shutdown()
    for thread in begun:
        thread.join(PATIENCE)
