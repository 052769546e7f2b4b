"""What can be asked of the queue: order, restart, one job per model, what it tells of a job."""

from __future__ import annotations

import threading
import time

import pytest

from llamactl.downloads.limits import Limits
from llamactl.downloads.snapshots import JobSnapshot, job_json
from llamactl.downloads.states import JobStatus
from llamactl.errors import ModelInUse, ModelNotFound, QueueFull, ShuttingDown
from llamactl.models.reference import ModelRef
from tests.downloads.conftest import FILE, PAYLOAD, REF, REPO, Site, add_models, slow_job
from tests.downloads.waiting import LONG, eventually
from tests.fakes.fake_hub import FakeHub, seeded_bytes


def test_a_model_is_downloaded_with_mmproj_preset_and_shards_in_folders(
    hub: FakeHub, site: Site
) -> None:
    files = {
        f"BF16/big-BF16-0000{number}-of-00003.gguf": seeded_bytes(700_000, number)
        for number in (1, 2, 3)
    }
    extras = {"mmproj-F16.gguf": seeded_bytes(80_000, 9), "preset.ini": b"[BF16]\ntemp = 1\n"}
    hub.add_repo("org/big", files | extras)
    job = site.download(ModelRef("org/big", "bf16"))
    assert (job.job.status, job.job.tag) == ("completed", "BF16")
    for name, content in (files | extras).items():
        assert site.bytes_of(name, "org/big") == content
    model = site.cache.find(ModelRef("org/big", "BF16"))
    assert model is not None and model.complete
    assert [file.status for file in job.progress.files] == ["completed"] * 5
    assert site.leftovers() == []


def test_an_empty_file_is_a_file(hub: FakeHub, site: Site) -> None:
    hub.add_repo("org/odd", {FILE: seeded_bytes(1000), "preset.ini": b""})
    assert site.download(ModelRef("org/odd", "Q4_K_M")).job.status == "completed"
    assert site.bytes_of("preset.ini", "org/odd") == b""


def test_files_with_the_same_bytes_are_fetched_once(hub: FakeHub, site: Site) -> None:
    same = seeded_bytes(300_000)
    names = [f"twin-Q4_K_M-0000{number}-of-00002.gguf" for number in (1, 2)]
    hub.add_repo("org/twins", dict.fromkeys(names, same))
    assert site.download(ModelRef("org/twins", "Q4_K_M")).job.status == "completed"
    assert [site.bytes_of(name, "org/twins") for name in names] == [same, same]
    assert hub.bytes_sent("cdn") == len(same)


def test_ten_posts_at_once_are_one_job_and_one_transfer(site: Site) -> None:
    site.start()
    gate = threading.Barrier(10)
    ids: list[str] = []

    def post() -> None:
        gate.wait()
        ids.append(site.submit().job.id)

    threads = [threading.Thread(target=post) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 1
    site.assert_complete(site.queue.wait(ids[0], LONG))
    assert site.hub.bytes_sent("cdn") == len(PAYLOAD)
    assert len(site.queue.jobs()) == 1


def test_spellings_of_one_tag_are_one_job(site: Site) -> None:
    job_id = slow_job(site)
    assert site.submit(ModelRef(REPO, "q4_k_m")).job.id == job_id


def test_a_second_download_of_a_finished_model_is_a_new_job(site: Site) -> None:
    assert site.download().job.id != site.download().job.id


def test_latest_and_a_tag_that_mean_the_same_file_do_not_disturb_each_other(site: Site) -> None:
    site.hub.throttle(400_000)
    one, other = site.submit(), site.submit(ModelRef(REPO, "latest"))
    for job in (one, other):
        site.assert_complete(site.queue.wait(job.job.id, LONG))
    assert site.hub.bytes_sent("cdn") == len(PAYLOAD)


def test_jobs_run_in_the_order_of_their_submission(hub: FakeHub, site: Site) -> None:
    site.settings["downloads.max_concurrent"] = 1
    refs = add_models(hub, 5)
    ids = [site.submit(ref).job.id for ref in refs]
    done = [site.queue.wait(job_id, LONG) for job_id in ids]
    ends = [snapshot.job.completed_at or 0 for snapshot in done]
    assert ends == sorted(ends) and 0 not in ends


def test_no_more_jobs_run_at_once_than_allowed_and_the_limit_can_be_raised(
    hub: FakeHub, site: Site
) -> None:
    refs = add_models(hub, 5)
    hub.fault("cdn", ".", kind="delay", times=None)
    for ref in refs:
        site.submit(ref)
    assert len(states(site, "downloading")) == 2
    site.queue.set_limits(Limits(4, None))
    assert len(states(site, "downloading")) == 4
    site.queue.set_limits(Limits(1, None))
    assert len(states(site, "downloading")) == 4, "what runs is not stopped"
    hub.clear_faults()
    eventually(lambda: states(site, "completed"), lambda done: len(done) == 5)


def test_a_queue_that_is_full_says_what_to_do(
    hub: FakeHub, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamactl.downloads.table.MOST_QUEUED", 1)
    site.settings["downloads.max_concurrent"] = 1
    running, waiting, refused = add_models(hub, 3)
    hub.fault("cdn", ".", kind="delay", times=None)
    site.submit(running)
    site.submit(waiting)
    with pytest.raises(QueueFull, match="1 jobs are waiting") as full:
        site.submit(refused)
    assert "cancel some" in full.value.hint
    assert site.submit(waiting).job.status == "queued", "one that is there is no further job"
    hub.clear_faults()


def states(site: Site, status: JobStatus) -> list[str]:
    return [each.job.id for each in site.queue.jobs() if each.job.status == status]


def test_jobs_are_listed_newest_first(hub: FakeHub, site: Site) -> None:
    ids = [site.submit(ref).job.id for ref in add_models(hub, 3)]
    assert [each.job.id for each in site.queue.jobs()] == ids[::-1]


def test_a_stopped_queue_goes_on_from_its_bytes_after_a_restart(site: Site) -> None:
    job_id = slow_job(site)
    site.stop()
    site.hub.throttle(None)
    earlier = len(site.byte_requests())
    site.start()
    kept = site.queue.job(job_id).progress.bytes_downloaded
    assert kept >= 100_000
    site.assert_complete(site.queue.wait(job_id, LONG))
    ranges = [request.byte_range for request in site.byte_requests()[earlier:]]
    fetched = sum(last + 1 - first for first, last in filter(None, ranges))
    assert fetched <= len(PAYLOAD) - kept


def test_queued_jobs_survive_a_restart_in_their_order(hub: FakeHub, site: Site) -> None:
    site.settings["downloads.max_concurrent"] = 1
    hub.fault("cdn", ".", kind="delay", times=None)
    ids = [site.submit(ref).job.id for ref in add_models(hub, 4)]
    site.stop()
    hub.clear_faults()
    site.start()
    ends = [site.queue.wait(job_id, LONG).job.completed_at or 0 for job_id in ids]
    assert ends == sorted(ends) and 0 not in ends


def test_a_paused_job_stays_paused_over_a_restart(site: Site) -> None:
    job_id = slow_job(site)
    before = site.queue.pause(job_id).progress.bytes_downloaded
    site.stop()
    site.start()
    after = site.queue.job(job_id)
    assert (after.job.status, after.progress.bytes_downloaded) == ("paused", before)


def test_finished_jobs_stay_listed_over_a_restart(site: Site) -> None:
    job = site.download()
    site.stop()
    site.start()
    assert job_json(site.queue.job(job.job.id)) == job_json(job)


def test_jobs_that_ended_long_ago_are_forgotten_at_the_start(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.download()
    site.stop()
    later = time.time() + 31 * 86400
    monkeypatch.setattr("llamactl.downloads.table.time.time", lambda: later)
    site.start()
    assert site.queue.jobs() == []


def test_a_stopping_queue_takes_no_jobs(site: Site) -> None:
    site.start().request_stop()
    with pytest.raises(ShuttingDown):
        site.submit()


def test_a_model_is_in_use_while_its_job_is_active(site: Site) -> None:
    job_id = slow_job(site)
    assert site.queue.uses(REPO)
    assert site.queue.uses(REPO, "q4_k_m")
    assert not site.queue.uses(REPO, "Q8_0")
    assert not site.queue.uses("org/other")
    site.queue.delete(job_id)
    assert not site.queue.uses(REPO)


def test_a_model_of_an_active_job_is_not_removed(site: Site) -> None:
    slow_job(site)
    with pytest.raises(ModelInUse), site.queue.removing(REPO, "Q4_K_M"):
        pytest.fail("it is in use")


def test_a_job_that_is_submitted_while_its_model_is_removed_begins_afterwards(site: Site) -> None:
    site.assert_complete(site.download())
    with site.queue.removing(REPO, "Q4_K_M"):
        again = site.submit().job.id
        assert site.queue.wait(again, 0.2).job.status == "queued"
        site.cache.delete(REPO, "Q4_K_M")
        assert site.queue.job(again).job.status == "queued"
    site.assert_complete(site.queue.wait(again, LONG))


def test_a_removal_that_fails_holds_up_nobody(site: Site) -> None:
    site.start()
    with pytest.raises(ModelNotFound), site.queue.removing(REPO, None):
        site.cache.delete(REPO, None)
    site.assert_complete(site.download())


def test_progress_only_grows_and_ends_at_the_total(site: Site) -> None:
    site.hub.throttle(1_500_000)
    site.hub.fault("cdn", ".", kind="cut", after=30_000, times=6, nth=3)
    job = site.submit()
    seen: list[int] = []

    def finished(snapshot: JobSnapshot) -> bool:
        seen.append(snapshot.progress.bytes_downloaded)
        return snapshot.job.status == "completed"

    done = site.until(job.job.id, finished)
    assert seen == sorted(seen)
    assert len(set(seen)) > 5
    assert done.progress.bytes_downloaded == len(PAYLOAD)


def test_progress_says_speed_time_left_and_file(site: Site) -> None:
    job_id = slow_job(site)
    seen = site.until(job_id, lambda snapshot: snapshot.progress.bytes_per_second > 0)
    shown = job_json(seen)["progress"]
    assert shown["total_bytes"] == len(PAYLOAD)
    assert shown["current_file"] == FILE
    assert shown["eta_seconds"] and shown["eta_seconds"] > 0


def test_the_version_grows_with_every_change(site: Site) -> None:
    site.start()
    before = site.queue.version()
    site.download()
    assert site.queue.version() > before


def test_unknown_tags_and_repositories_have_their_codes(site: Site) -> None:
    unknown = site.download(ModelRef(REPO, "Q9_9"))
    assert (unknown.job.status, unknown.job.error_code) == ("failed", "no_such_tag")
    assert "Q4_K_M" in (unknown.job.error or "")
    missing = site.download(ModelRef("org/nothing", "latest"))
    assert (missing.job.status, missing.job.error_code) == ("failed", "not_found")


def test_a_repository_that_needs_a_licence_leaves_nothing(hub: FakeHub, site: Site) -> None:
    hub.add_repo("org/gated", {FILE: PAYLOAD}, gated=True)
    job = site.download(ModelRef("org/gated", "Q4_K_M"))
    assert (job.job.status, job.job.error_code) == ("failed", "gated")
    assert "/org/gated" in (job.job.error or "")
    assert site.leftovers() == []


def test_a_dead_network_fails_with_its_code(site: Site) -> None:
    site.hub.fault("hub", ".", kind="drop", times=None)
    job = site.download()
    assert (job.job.status, job.job.error_code) == ("failed", "network")


def test_a_commit_that_the_hub_lost_is_replaced_by_todays(hub: FakeHub, site: Site) -> None:
    job_id = slow_job(site)
    site.queue.pause(job_id)
    repo = hub.routes.repos[REPO]
    old, newer = repo.main, seeded_bytes(500_000, "newer")
    hub.push(REPO, {FILE: newer})
    del repo.commits[old]
    hub.throttle(None)
    site.queue.resume(job_id)
    site.assert_complete(site.queue.wait(job_id, LONG), newer)


def test_one_repository_may_not_take_the_flat_names_of_another(hub: FakeHub, site: Site) -> None:
    hub.add_repo("a_b/c", {FILE: seeded_bytes(1000, 1)})
    hub.add_repo("a/b_c", {FILE: seeded_bytes(1000, 2)})
    assert site.download(ModelRef("a_b/c", "Q4_K_M")).job.status == "completed"
    second = site.download(ModelRef("a/b_c", "Q4_K_M"))
    assert (second.job.status, second.job.error_code) == ("failed", "name_collision")


def test_submit_answers_with_the_reference_as_it_was_given(site: Site) -> None:
    job = site.submit(ModelRef(REPO))
    assert (job.job.repo_id, job.job.tag) == (REPO, "latest")
    assert len(job.job.id) == 16
    assert site.queue.wait(job.job.id, LONG).job.tag == "latest"
    assert REF.key != ModelRef(REPO).key
