"""Silence on the line: seen, told, cured; and left within a moment when somebody wants to."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from tests.downloads.conftest import SMALL, Site
from tests.downloads.waiting import LONG, eventually

#: A stop is to take less than a second; a hang takes far longer than this.
SOON = 30.0


@pytest.fixture(autouse=True)
def hurried(site: Site) -> None:
    """Silence is a stall soon, though not as soon as a busy machine may be silent."""
    site.settings["downloads.stall_timeout"] = 1.0


def test_a_connection_that_falls_silent_is_cut_and_its_rest_asked_again(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="stall", after=50_000, nth=2)
    site.assert_complete(site.download())


def test_a_server_that_accepts_and_says_nothing_is_left(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="delay", times=2)
    site.assert_complete(site.download())


def test_a_byte_now_and_then_is_no_transfer(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="trickle", rate=20, nth=2)
    site.assert_complete(site.download())


def test_a_stall_is_told(site: Site) -> None:
    site.settings["downloads.stall_timeout"] = 60
    fault = site.hub.fault("cdn", ".", kind="stall", after=30_000, times=None)
    job = site.submit()
    site.until(job.job.id, lambda seen: seen.progress.detail == "stalled")
    fault.times = 0
    fault.release()
    site.assert_complete(site.queue.wait(job.job.id, LONG))


@pytest.mark.parametrize(("limit", "counted"), [(1, False), (3, True)])
def test_stalls_without_end_fail_in_the_end(site: Site, limit: int, counted: bool) -> None:
    site.settings |= {"downloads.stall_timeout": 0.1, "downloads.retry_limit": limit}
    site.hub.fault("cdn", ".", kind="delay", times=None)
    job = site.download()
    assert (job.job.status, job.job.error_code) == ("failed", "network")
    assert (f"({limit} failures in a row)" in str(job.job.error)) is counted


def test_waiting_for_the_next_try_is_told_with_its_time(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="status", status=503, headers={"Retry-After": "30"}, times=None)
    job = site.submit()
    seen = site.until(job.job.id, lambda seen: seen.progress.detail == "retrying")
    assert seen.progress.retry_at is not None and seen.progress.retry_at > time.time()


@pytest.mark.parametrize("kind", ["stall", "delay"])
@pytest.mark.parametrize("ask", ["delete", "pause"])
def test_a_silent_transfer_can_be_left_at_once(site: Site, kind: str, ask: str) -> None:
    site.settings["downloads.stall_timeout"] = 600
    fault = site.hub.fault("cdn", ".", kind=kind, after=30_000, times=None)
    job = site.submit()
    eventually(lambda: fault.hits, lambda hits: hits >= 4)
    began = time.monotonic()
    getattr(site.queue, ask)(job.job.id)
    assert time.monotonic() - began < SOON
    assert site.queue.job(job.job.id).job.status in ("cancelled", "paused")
    if ask == "delete":
        assert site.leftovers() == []


def test_a_hub_that_says_nothing_can_be_left_at_once(site: Site) -> None:
    site.hub.fault("hub", ".", kind="delay", times=None)
    job = site.submit()
    eventually(lambda: site.hub.log, bool)
    began = time.monotonic()
    site.queue.delete(job.job.id)
    assert time.monotonic() - began < SOON
    assert site.queue.job(job.job.id).job.status == "cancelled"


def test_a_wait_for_the_rate_limit_can_be_left_at_once(site: Site) -> None:
    site.hub.fault(
        "hub", ".", kind="status", status=429, headers={"Retry-After": "200"}, times=None
    )
    job = site.submit()
    site.until(job.job.id, lambda seen: seen.progress.detail == "rate_limited")
    began = time.monotonic()
    site.queue.pause(job.job.id)
    assert time.monotonic() - began < SOON


def test_cancel_while_verifying_removes_the_partial(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()

    class Slow:
        """A hash that takes its time once the last bytes are there."""

        def update(self, data: memoryview) -> None:
            held.wait(0.2)

        def hexdigest(self) -> str:
            return "never"

    monkeypatch.setattr("llamactl.downloads.transfer.digest_for", lambda oid, size: Slow())
    monkeypatch.setattr("llamactl.downloads.transfer.CHUNK", 10_000)
    job = site.submit()
    site.until(job.job.id, lambda seen: seen.progress.detail == "verifying")
    began = time.monotonic()
    site.queue.delete(job.job.id)
    assert time.monotonic() - began < SOON
    assert site.queue.job(job.job.id).job.status == "cancelled"
    assert site.leftovers() == []
    held.set()


def test_an_idle_connection_takes_over_half_of_a_slow_ones_rest(site: Site) -> None:
    site.settings["downloads.stall_timeout"] = 60
    site.tuning = replace(SMALL, read_size=4096, steal_above=0.5)
    site.hub.fault("cdn", ".", kind="trickle", rate=8_000, nth=3)
    site.assert_complete(site.download())
    (slow,) = (request for request in site.byte_requests() if request.fault == "trickle")
    assert slow.byte_range is not None
    assert slow.bytes_sent < slow.byte_range[1] + 1 - slow.byte_range[0]
