"""Cached files hashed anew: the damaged ones are named, and only they are fetched again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from llamactl.downloads.limits import Limits
from llamactl.downloads.snapshots import JobSnapshot, job_json
from llamactl.errors import ModelNotFound
from llamactl.models import digest
from llamactl.models.reference import ModelRef
from tests.downloads.conftest import FILE, PAYLOAD, REPO, SLOW, Site
from tests.downloads.waiting import LONG, eventually
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
    site.queue.set_limits(Limits(1, None))
    hub.add_repo("org/other", {FILE: PAYLOAD})
    hub.throttle(SLOW)
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


def test_a_check_that_runs_is_cancelled_paused_and_taken_up_again(site: Site) -> None:
    site.start()
    with_large_file(site, 64 << 30)
    running = site.queue.verify("org/large", repair=False).job.id
    eventually(lambda: site.queue.job(running).progress.bytes_downloaded, lambda count: count > 0)
    site.queue.pause(running)
    paused = site.queue.job(running)
    assert paused.job.status == "paused"
    assert 0 < paused.progress.bytes_downloaded < 64 << 30
    assert site.queue.verify("org/large", repair=False).job.id == running
    eventually(lambda: site.queue.job(running).job.status, lambda status: status == "downloading")
    site.queue.delete(running)
    assert site.queue.job(running).job.status == "cancelled"


def with_large_file(site: Site, size: int) -> None:
    """A model of zeros that takes a minute to hash and no room on the disk."""
    oid = "0" * 64
    folder = site.root / "models--org--large"
    for path in (folder / "blobs" / oid, folder / "refs/main", folder / "snapshots/c/m-F16.gguf"):
        path.parent.mkdir(parents=True)
    commit = "c" * 40
    (folder / "snapshots/c").rename(folder / "snapshots" / commit)
    with (folder / "blobs" / oid).open("wb") as blob:
        blob.truncate(size)
    (folder / "snapshots" / commit / "m-F16.gguf").symlink_to(f"../../blobs/{oid}")
    (folder / "refs/main").write_text(commit)


def as_older_llama_cpp_left_it(site: Site, content: bytes) -> Path:
    """The model in the flat cache alone, with no word of its digest."""
    site.start()
    path = site.cache.flat.path(REPO, FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    manifest = {"ggufFile": {"rfilename": FILE, "size": len(content)}}
    site.cache.flat.manifest_path(ModelRef(REPO, "Q4_K_M")).write_text(json.dumps(manifest))
    return path


def test_a_file_without_a_recorded_digest_is_compared_with_the_hubs(site: Site) -> None:
    as_older_llama_cpp_left_it(site, PAYLOAD)
    assert site.cache.list()[0].files[0].sha256 is None
    assert verify(site, REPO).job.status == "completed"
    assert site.cache.list()[0].files[0].sha256 == hashlib.sha256(PAYLOAD).hexdigest()


def test_its_damage_is_found_and_mended(site: Site) -> None:
    path = as_older_llama_cpp_left_it(site, PAYLOAD)
    spoil(path)
    assert verify(site, REPO).job.error_code == "checksum_mismatch"
    assert verify(site, REPO, repair=True).job.status == "completed"
    assert path.read_bytes() == PAYLOAD


def test_a_file_that_nothing_can_be_compared_with_is_not_called_sound(
    site: Site, hub: FakeHub
) -> None:
    as_older_llama_cpp_left_it(site, PAYLOAD[:-1])
    job = verify(site, REPO)
    assert (job.job.status, job.job.error_code) == ("failed", "no_digest")
    assert FILE in (job.job.error or "")
    del hub.routes.repos[REPO]
    assert verify(site, REPO).job.error_code == "no_digest"


def test_a_file_that_cannot_be_read_is_damaged(
    site: Site, cached_set: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = site.cache.flat.path(SET.repo_id, NAMES[1])
    matches = digest.matches

    def unreadable(path: Path, oid: str, **how: Any) -> bool:
        if path == lost:
            raise OSError(errno.EIO, "Input/output error")
        return matches(path, oid, **how)

    monkeypatch.setattr(digest, "matches", unreadable)
    job = verify(site, SET.repo_id)
    assert (job.job.status, job.job.error_code) == ("failed", "checksum_mismatch")
    assert NAMES[1] in (job.job.error or "")
