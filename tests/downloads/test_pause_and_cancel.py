"""Jobs that are paused, resumed, cancelled and removed, and what stays of their bytes."""

from __future__ import annotations

import pytest

from llamactl.errors import InvalidState, JobNotFound
from llamactl.models.reference import ModelRef
from tests.downloads.conftest import FILE, PAYLOAD, REPO, SLOW, Site, add_models, slow_job
from tests.downloads.waiting import LONG
from tests.fakes.fake_hub import FakeHub, seeded_bytes


def test_a_pause_keeps_the_bytes_and_a_resume_fetches_the_rest(site: Site) -> None:
    job_id = slow_job(site)
    paused = site.queue.pause(job_id)
    assert paused.job.status == "paused"
    assert paused.progress.bytes_downloaded >= 100_000
    assert paused.progress.bytes_per_second == 0
    assert not site.cache.flat.path(REPO, FILE).exists()
    site.hub.throttle(None)
    site.queue.resume(job_id)
    site.assert_complete(site.queue.wait(job_id, LONG))


def test_posting_a_paused_model_again_lets_it_go_on(site: Site) -> None:
    job_id = slow_job(site)
    site.queue.pause(job_id)
    site.hub.throttle(None)
    assert site.submit().job.id == job_id
    site.assert_complete(site.queue.wait(job_id, LONG))


def test_a_queued_job_can_be_paused_resumed_and_cancelled(hub: FakeHub, site: Site) -> None:
    site.settings["downloads.max_concurrent"] = 1
    slow_job(site)
    (ref,) = add_models(hub, 1)
    waiting = site.submit(ref).job
    assert waiting.status == "queued"
    assert site.queue.pause(waiting.id).job.status == "paused"
    assert site.queue.resume(waiting.id).job.status == "queued"
    site.queue.delete(waiting.id)
    assert site.queue.job(waiting.id).job.status == "cancelled"


def test_a_cancelled_download_leaves_nothing(site: Site) -> None:
    job_id = slow_job(site)
    site.queue.delete(job_id)
    assert site.queue.job(job_id).job.status == "cancelled"
    assert site.leftovers() == []
    assert site.queue.uses(REPO) is False


def test_a_cancel_while_paused_removes_the_partial(site: Site) -> None:
    job_id = slow_job(site)
    site.queue.pause(job_id)
    assert site.leftovers() != []
    site.queue.delete(job_id)
    assert site.queue.job(job_id).job.status == "cancelled"
    assert site.leftovers() == []


def test_a_cancel_takes_finished_files_of_the_unfinished_model_too(
    hub: FakeHub, site: Site
) -> None:
    names = [f"set-Q4_K_M-0000{number}-of-00002.gguf" for number in (1, 2)]
    hub.add_repo("org/set", {names[0]: seeded_bytes(1000, 1), names[1]: PAYLOAD})
    hub.throttle(SLOW)
    job = site.submit(ModelRef("org/set", "Q4_K_M"))
    site.until(
        job.job.id, lambda seen: [f.status for f in seen.progress.files][:1] == ["completed"]
    )
    site.queue.delete(job.job.id)
    assert site.leftovers() == []
    assert [path.name for path in site.flat.rglob("*") if path.is_file()] == []
    assert [path.name for path in site.root.rglob("*") if path.is_file()] == []


def test_removing_a_failed_job_removes_its_partial(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="status", status=403, nth=5, times=None)
    failed = site.download()
    assert site.leftovers() != []
    site.queue.delete(failed.job.id)
    assert site.leftovers() == []
    with pytest.raises(JobNotFound):
        site.queue.job(failed.job.id)


def test_removing_an_old_job_leaves_the_partial_of_the_one_that_goes_on(site: Site) -> None:
    fault = site.hub.fault("cdn", ".", kind="status", status=403, nth=5, times=None)
    failed = site.download()
    fault.times = 0
    job_id = slow_job(site)
    site.queue.delete(failed.job.id)
    site.hub.throttle(None)
    site.assert_complete(site.queue.wait(job_id, LONG))


def test_removing_a_completed_job_leaves_the_model(site: Site) -> None:
    job = site.download()
    site.queue.delete(job.job.id)
    assert site.queue.jobs() == []
    assert site.bytes_of() == PAYLOAD


@pytest.mark.parametrize("ask", ["pause", "resume", "retry"])
def test_a_completed_job_can_do_nothing_more(site: Site, ask: str) -> None:
    job = site.download()
    with pytest.raises(InvalidState):
        getattr(site.queue, ask)(job.job.id)


def test_an_unknown_job_is_said_to_be_unknown(site: Site) -> None:
    with pytest.raises(JobNotFound):
        site.queue.job("0123456789abcdef")
