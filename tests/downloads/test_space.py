"""Room on the disk, shared out before the first byte."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamactl.downloads.space import Space
from llamactl.errors import InsufficientSpace
from tests.downloads.conftest import FILE, PAYLOAD, REF, Site
from tests.downloads.waiting import LONG


def test_a_plan_that_does_not_fit_is_refused_with_the_figures(tmp_path: Path) -> None:
    space = Space(lambda: 10_000_000_000, keep_free=1_000_000_000)
    told = r"9\.5 GB are needed beside the 1\.0 GB that stay free .*; 10\.0 GB are free\."
    with pytest.raises(InsufficientSpace, match=told):
        space.reserve("a", [(tmp_path / "x", 9_500_000_000)])
    space.reserve("a", [(tmp_path / "x", 9_000_000_000)])


def test_what_other_jobs_were_promised_counts(tmp_path: Path) -> None:
    space = Space(lambda: 1000, keep_free=0)
    space.reserve("a", [(tmp_path / "x", 600)])
    with pytest.raises(InsufficientSpace, match="promised"):
        space.reserve("b", [(tmp_path / "y", 500)])
    space.release("a")
    space.reserve("b", [(tmp_path / "y", 500)])


def test_a_job_may_ask_again_for_its_own(tmp_path: Path) -> None:
    space = Space(lambda: 1000, keep_free=0)
    for _ in range(3):
        space.reserve("a", [(tmp_path / "x", 900)])


def test_bytes_that_a_partial_takes_already_are_not_counted_twice(tmp_path: Path) -> None:
    size = 1 << 20
    partial = tmp_path / "x"
    partial.write_bytes(os.urandom(size))
    os.sync()
    space = Space(lambda: 1000, keep_free=0)
    space.reserve("a", [(partial, size)])
    space.reserve("b", [(tmp_path / "y", 900)])


def test_a_file_that_became_part_of_the_cache_is_no_promise_any_more(tmp_path: Path) -> None:
    space = Space(lambda: 1000, keep_free=0)
    space.reserve("a", [(tmp_path / "x", 900)])
    space.settled("a", tmp_path / "x")
    space.reserve("b", [(tmp_path / "y", 900)])


def test_a_download_without_room_fails_before_its_first_byte(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [1_000_000]
    monkeypatch.setattr("llamactl.models.cache.ModelCache.free_space", lambda self: free[0])
    job = site.download()
    assert (job.job.status, job.job.error_code) == ("failed", "insufficient_space")
    assert site.byte_requests() == []
    assert site.leftovers() == []
    free[0] = 1_000_000_000
    site.assert_complete(site.queue.wait(site.queue.retry(job.job.id).job.id, LONG))


def test_a_disk_that_fills_up_on_the_way_fails_and_goes_on_after_it_is_freed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamactl.downloads import disk

    usual, limit = disk.write_at, len(PAYLOAD) // 2

    def small_disk(descriptor: int, data: memoryview, offset: int) -> None:
        if offset + len(data) > limit:
            raise OSError(28, "No space left on device")
        usual(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_at", small_disk)
        job = site.download(REF)
    assert (job.job.status, job.job.error_code) == ("failed", "insufficient_space")
    assert "Free some space" in (job.job.error or "")
    assert job.progress.bytes_downloaded > 0
    assert not site.cache.flat.path(REF.repo_id, FILE).exists()
    site.assert_complete(site.queue.wait(site.queue.retry(job.job.id).job.id, LONG))
