"""Bytes from the socket into the file by the kernel, and what happens where it does not do that."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace

import pytest

from llamactl.downloads import splicing
from tests.downloads.conftest import FILE, PAYLOAD, SMALL, Site
from tests.fakes.fake_hub import FakeHub, seeded_bytes

pytestmark = pytest.mark.skipif(not splicing.AVAILABLE, reason="needs Linux's splice")


def test_a_connection_serves_one_piece_after_the_other(site: Site) -> None:
    site.assert_complete(site.download())
    requests = site.byte_requests()
    assert len({request.connection for request in requests}) <= 4 < len(requests)


def test_without_splicing_the_bytes_come_all_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splicing, "AVAILABLE", False)
    site.assert_complete(site.download())
    requests = site.byte_requests()
    assert len({request.connection for request in requests}) <= 4 < len(requests)


def test_a_cut_connection_goes_on_at_the_very_byte_without_splicing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splicing, "AVAILABLE", False)
    site.hub.fault("cdn", ".", kind="cut", after=40_000, ending="fin", times=None)
    site.assert_complete(site.download())
    assert site.hub.bytes_sent("cdn") == len(PAYLOAD)


def refuse_files(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Have every splice into a file fail; how often one was tried."""
    tried: list[int] = []
    if sys.platform == "linux":
        usual = os.splice

        def splice(source: int, target: int, count: int, **where: int) -> int:
            if "offset_dst" in where:
                tried.append(count)
                raise OSError(number, os.strerror(number))
            return usual(source, target, count, **where)

        monkeypatch.setattr(os, "splice", splice)
    return tried


def test_a_file_system_that_takes_no_part_gets_its_bytes_by_hand(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = refuse_files(monkeypatch, errno.EINVAL)
    site.assert_complete(site.download())
    assert 0 < len(tried) <= 4, "each connection tries once"


def test_a_disk_that_is_full_while_splicing_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        refuse_files(patch, errno.ENOSPC)
        job = site.download()
    assert (job.job.status, job.job.error_code) == ("failed", "insufficient_space")
    site.assert_complete(site.queue.wait(site.queue.retry(job.job.id).job.id))


@pytest.mark.parametrize("size", [1, 100, 8191, 8192, 8193, 100_000])
@pytest.mark.parametrize("read_size", [512, 8192, 1 << 20])
def test_bytes_that_came_with_the_headers_are_not_lost(
    hub: FakeHub, site: Site, size: int, read_size: int
) -> None:
    site.tuning = replace(SMALL, read_size=read_size)
    content = seeded_bytes(size, size)
    hub.push("org/name-GGUF", {FILE: content})
    assert site.download().job.status == "completed"
    assert site.bytes_of() == content
