"""Cached files hashed anew: the damaged ones are named, and only they are fetched again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamactl.downloads.snapshots import JobSnapshot, job_json
from llamactl.errors import ModelNotFound
from llamactl.models.reference import ModelRef
from tests.downloads.conftest import FILE, PAYLOAD, REPO, Site
from tests.downloads.waiting import LONG
from tests.fakes.fake_hub import FakeHub, seeded_bytes

NAMES = [f"set-Q4_K_M-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
SET = ModelRef("org/set", "Q4_K_M")


def verify(
    site: Site, repo_id: str, tag: str | None = None, *, repair: bool = False
) -> JobSnapshot:
    return site.queue.wait(site.queue.verify(repo_id, tag, repair=repair).job.id, LONG)


def spoil(path: Path, *, keep_time: bool = False) -> None:
    """Flip a bit in the middle of a file, with or without a trace in its time."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(before.st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte[0] ^ 1]))
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def cached_set(hub: FakeHub, site: Site) -> dict[str, bytes]:
    """A model of three shards with a projector, downloaded."""
    contents = {name: seeded_bytes(300_000, name) for name in NAMES}
    contents["mmproj-F16.gguf"] = seeded_bytes(50_000, "mmproj")
    hub.add_repo(SET.repo_id, contents)
    assert site.download(SET).job.status == "completed"
    return contents


def test_a_sound_model_is_found_sound(site: Site, cached_set: dict[str, bytes]) -> None:
    earlier = len(site.byte_requests())
    job = verify(site, SET.repo_id, SET.tag)
    assert (job.job.kind, job.job.status, job.job.error) == ("verify", "completed", None)
    assert job.progress.total_bytes == sum(map(len, cached_set.values()))
    assert {file.status for file in job.progress.files} == {"completed"}
    assert len(site.byte_requests()) == earlier


@pytest.mark.parametrize("keep_time", [True, False])
def test_damaged_files_are_named(site: Site, cached_set: dict[str, bytes], keep_time: bool) -> None:
    spoil(site.cache.flat.path(SET.repo_id, NAMES[1]), keep_time=keep_time)
    job = verify(site, SET.repo_id)
    assert (job.job.status, job.job.error_code) == ("failed", "checksum_mismatch")
    assert NAMES[1] in (job.job.error or "") and NAMES[0] not in (job.job.error or "")
    damaged = [file.name for file in job.progress.files if file.status == "damaged"]
    assert damaged == [NAMES[1]]


@pytest.mark.parametrize("keep_time", [True, False])
def test_a_repair_fetches_only_what_is_damaged(
    site: Site, cached_set: dict[str, bytes], keep_time: bool
) -> None:
    spoil(site.cache.flat.path(SET.repo_id, NAMES[1]), keep_time=keep_time)
    before = site.hub.bytes_sent("cdn")
    job = verify(site, SET.repo_id, SET.tag, repair=True)
    assert (job.job.status, job.job.error) == ("completed", None)
    assert site.hub.bytes_sent("cdn") - before == len(cached_set[NAMES[1]])
    for name, content in cached_set.items():
        assert site.bytes_of(name, SET.repo_id) == content
    assert site.leftovers() == []
    assert verify(site, SET.repo_id).job.status == "completed"


def test_a_repair_stays_with_the_commit_that_is_cached(
    hub: FakeHub, site: Site, cached_set: dict[str, bytes]
) -> None:
    hub.push(SET.repo_id, {NAMES[0]: seeded_bytes(300_000, "newer")})
    spoil(site.cache.flat.path(SET.repo_id, NAMES[1]))
    assert verify(site, SET.repo_id, repair=True).job.status == "completed"
    for name, content in cached_set.items():
        assert site.bytes_of(name, SET.repo_id) == content


def test_what_the_hub_has_no_more_cannot_be_repaired_and_says_so(
    hub: FakeHub, site: Site, cached_set: dict[str, bytes]
) -> None:
    repo = hub.routes.repos[SET.repo_id]
    old = repo.main
    hub.push(SET.repo_id, {NAMES[1]: seeded_bytes(300_000, "newer")})
    repo.commits[old] = repo.commits[repo.main]
    spoil(site.cache.flat.path(SET.repo_id, NAMES[1]))
    job = verify(site, SET.repo_id, repair=True)
    assert (job.job.status, job.job.error_code) == ("failed", "checksum_mismatch")
    assert "download the model again" in (job.job.error or "")


def test_all_models_of_a_repository_are_checked_without_a_tag(hub: FakeHub, site: Site) -> None:
    hub.push(REPO, {"m-Q8_0.gguf": seeded_bytes(100_000, 8)})
    site.download()
    site.download(ModelRef(REPO, "Q8_0"))
    job = verify(site, REPO)
    assert {file.name for file in job.progress.files} == {FILE, "m-Q8_0.gguf"}
    assert job_json(job)["tag"] is None
    one = verify(site, REPO, "q8_0")
    assert [file.name for file in one.progress.files] == ["m-Q8_0.gguf"]


def test_what_is_not_cached_cannot_be_verified(site: Site) -> None:
    site.start()
    with pytest.raises(ModelNotFound):
        site.queue.verify("org/none", repair=False)


def test_a_check_can_be_cancelled_and_a_queued_one_survives_a_restart(
    hub: FakeHub, site: Site
) -> None:
    site.download()
    site.queue.set_max_concurrent(1)
    hub.add_repo("org/other", {FILE: PAYLOAD})
    hub.throttle(100_000)
    site.submit(ModelRef("org/other", "Q4_K_M"))
    waiting = site.queue.verify(REPO, repair=True)
    assert waiting.job.status == "queued"
    assert site.queue.verify(REPO, repair=True).job.id == waiting.job.id
    assert site.queue.uses(REPO)
    site.stop()
    hub.throttle(None)
    site.start()
    assert site.queue.wait(waiting.job.id, LONG).job.status == "completed"
    later = site.queue.verify(REPO, repair=False)
    site.queue.delete(later.job.id)
