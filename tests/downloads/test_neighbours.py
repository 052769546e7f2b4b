"""Other processes at the same bytes: nobody spoils anybody's file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from llamactl.models.layout import FlatCache, HubCache
from tests.downloads.conftest import FILE, PAYLOAD, REF, REPO, Site, slow_job
from tests.downloads.waiting import LONG
from tests.fakes.fake_hub import FakeHub


def process(hub: FakeHub, folder: Path) -> subprocess.Popen[str]:
    module = "tests.downloads.worker_process"
    command = [sys.executable, "-m", module, hub.endpoint, str(folder), str(REF)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_download_the_same_model_once(hub: FakeHub, tmp_path: Path) -> None:
    caches = tmp_path / "caches"
    caches.mkdir()
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
        (folder / "caches").symlink_to(caches)
    hub.throttle(700_000)
    running = [process(hub, folder) for folder in folders]
    outputs = [each.communicate(timeout=LONG)[0] for each in running]
    assert outputs == ["started\ncompleted None\n"] * 2
    assert FlatCache(caches / "flat").path(REPO, FILE).read_bytes() == PAYLOAD
    assert hub.bytes_sent("cdn") == len(PAYLOAD)
    assert not [*caches.rglob("*.incomplete")]


def test_partials_of_other_programs_are_left_alone(site: Site) -> None:
    site.start()
    blobs = HubCache(site.root).blobs(REPO)
    blobs.mkdir(parents=True)
    oid = "0" * 64
    others = [blobs / f"{oid}.downloadInProgress", blobs / f"{oid}.0a1b2c3d.incomplete"]
    for other in others:
        other.write_bytes(b"theirs")
    assert site.download().job.status == "completed"
    assert [other.read_bytes() for other in others] == [b"theirs", b"theirs"]
    for other in others:
        other.unlink()


def test_a_file_that_another_program_left_whole_is_not_fetched(site: Site) -> None:
    """What ``hf download`` leaves: a blob, and a link in a snapshot."""
    site.start()
    layout = HubCache(site.root)
    commit = site.hub.routes.repos[REPO].main
    entry = site.hub.routes.repos[REPO].commits[commit][FILE]
    blob, snapshot = layout.blob(REPO, entry.oid), layout.snapshot(REPO, commit)
    blob.parent.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    blob.write_bytes(PAYLOAD)
    (snapshot / FILE).symlink_to(os.path.relpath(blob, snapshot))
    site.assert_complete(site.download())
    assert site.byte_requests() == []


def test_a_file_of_the_right_size_and_wrong_bytes_is_not_believed(site: Site) -> None:
    site.start()
    flat = site.cache.flat.path(REPO, FILE)
    flat.parent.mkdir(parents=True, exist_ok=True)
    flat.write_bytes(bytes(len(PAYLOAD)))
    site.assert_complete(site.download())


def test_a_cache_that_is_removed_on_the_way_is_said_to_be_gone_and_made_anew(site: Site) -> None:
    job_id = slow_job(site)
    # Moved first: whoever writes there meanwhile would let the removal fail.
    shutil.rmtree(site.root.rename(site.root.with_name("removed")))
    failed = site.until(job_id, lambda seen: seen.job.status != "downloading").job
    assert (failed.status, failed.error_code) == ("failed", "cache_not_writable")
    assert failed.error is not None and "is gone" in failed.error
    site.hub.throttle(None)
    site.queue.retry(job_id)
    site.assert_complete(site.until(job_id, lambda seen: seen.job.status == "completed"))
