"""Jobs that have ended: how they are kept, how they are cleared, what thousands of them cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from llamactl.downloads.attempt import resting_progress
from llamactl.downloads.progress import Progress
from llamactl.downloads.states import Job
from llamactl.models.reference import ModelRef
from tests.downloads.conftest import REF, REPO, Site, slow_job
from tests.downloads.waiting import LONG

NOWHERE = ModelRef("nobody/nothing-GGUF")


def failed_midway(site: Site) -> str:
    """A download that failed with bytes on the disk."""
    site.hub.throttle(1_000_000)
    site.hub.fault("cdn", ".", kind="drop", nth=6, times=None)
    job = site.download()
    assert job.job.status == "failed" and job.progress.bytes_downloaded > 0
    site.hub.clear_faults()
    site.hub.throttle(None)
    return job.job.id


def listed(site: Site) -> list[str]:
    return [each.job.id for each in site.queue.jobs()]


def test_clearing_takes_what_has_ended_and_leaves_what_goes_on(site: Site) -> None:
    site.download()
    failed = site.download(NOWHERE).job
    assert failed.status == "failed"
    checked = site.queue.wait(site.queue.verify(REPO, repair=False).job.id, LONG).job
    assert checked.status == "completed"
    site.cache.delete(REPO, None)
    running = slow_job(site)
    other = site.queue.submit(NOWHERE).job.id
    site.queue.wait(other, LONG)
    site.queue.delete(site.submit(ModelRef("x/y")).job.id)
    assert site.queue.clear() == (5, 0)
    assert listed(site) == [running]
    site.stop()
    site.start()
    assert listed(site) == [running], "it is durable"
    site.queue.delete(running)


def test_clearing_keeps_a_failed_download_that_can_go_on(site: Site) -> None:
    job_id = failed_midway(site)
    assert site.queue.clear() == (0, 1)
    assert listed(site) == [job_id] and site.leftovers()
    site.queue.retry(job_id)
    site.assert_complete(site.queue.wait(job_id, LONG))


def test_clearing_takes_a_failure_whose_model_a_later_download_brought(site: Site) -> None:
    failed_midway(site)
    site.assert_complete(site.download())
    assert site.queue.clear() == (2, 0)
    assert listed(site) == []
    assert site.cache.find(REF) is not None


def test_clearing_an_old_failure_leaves_the_bytes_of_a_new_one(site: Site) -> None:
    failed_midway(site)
    site.download()
    site.cache.delete(REPO, None)
    newest = failed_midway(site)
    assert site.queue.clear() == (2, 1)
    assert listed(site) == [newest] and site.leftovers()


def test_a_download_that_is_done_is_remembered_without_the_list_of_its_repository(
    site: Site,
) -> None:
    job = site.download().job
    assert job.plan is not None
    plan: dict[str, Any] = json.loads(job.plan)
    assert (plan["listing"], plan["manifest"]) == ([], None)
    assert len(plan["ggufs"]) == 1


def test_a_start_looks_at_no_job_that_nobody_asks_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = site.download().job, site.download().job
    site.stop()
    looks: list[str] = []

    def counted(*what: Any) -> Progress:
        looks.append(what[0])
        return resting_progress(*what)

    def only_the_second(jobs: Sequence[Job]) -> Sequence[Job]:
        assert [job.id for job in jobs] == [second.id, first.id]
        return jobs[:1]

    monkeypatch.setattr("llamactl.downloads.queue.resting_progress", counted)
    site.start()
    assert looks == []
    (shown,) = site.queue.jobs(only_the_second)
    assert (shown.job, shown.progress.bytes_downloaded) == (second, 2_000_000)
    assert looks == [REPO]
    site.queue.jobs()
    assert looks == [REPO] * 2
    site.queue.jobs()
    assert looks == [REPO] * 2, "what was found is kept"
