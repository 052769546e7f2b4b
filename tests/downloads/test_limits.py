"""What limits all downloads together, set while they run."""

from __future__ import annotations

import time
from dataclasses import replace

from llamactl.downloads.limits import Limits
from tests.downloads.conftest import PAYLOAD, Site, slow_job
from tests.downloads.waiting import LONG


def test_a_bandwidth_limit_holds_and_can_be_lifted_on_the_way(site: Site) -> None:
    site.settings["downloads.bandwidth_limit"] = 200_000
    began = time.monotonic()
    job = site.submit()
    site.until(job.job.id, lambda seen: seen.progress.bytes_downloaded > 150_000)
    assert time.monotonic() - began > 0.5, "150 kB at 200 kB/s, less the burst"
    site.queue.set_limits(replace(site.queue.limits, bandwidth_limit=None))
    site.assert_complete(site.queue.wait(job.job.id, LONG))


def test_a_bandwidth_limit_that_is_set_on_the_way_holds_from_then_on(site: Site) -> None:
    job_id = slow_job(site)
    site.queue.set_limits(Limits(2, 500_000))
    began, left = time.monotonic(), len(PAYLOAD) - site.hub.bytes_sent("cdn")
    site.hub.throttle(None)
    site.assert_complete(site.queue.wait(job_id, LONG))
    assert time.monotonic() - began > left / 500_000 - 0.5, "less the burst"


def test_limits_that_were_set_hold_over_restarts_until_they_are_given_back(site: Site) -> None:
    configured = site.queue.limits
    mine = Limits(7, 3_000_000)
    site.queue.set_limits(mine)
    for _ in range(2):
        site.stop()
        assert site.start().limits == mine
        assert (site.queue.configured, site.queue.limits_are_set) == (configured, True)
    site.queue.set_limits(None)
    site.stop()
    assert (site.start().limits, site.queue.limits_are_set) == (configured, False)


def test_a_bandwidth_limit_that_was_set_slows_downloads_after_a_restart(site: Site) -> None:
    site.queue.set_limits(Limits(2, 200_000))
    site.stop()
    site.start()
    began = time.monotonic()
    job = site.submit()
    site.until(job.job.id, lambda seen: seen.progress.bytes_downloaded > 150_000)
    assert time.monotonic() - began > 0.5, "150 kB at 200 kB/s, less the burst"
