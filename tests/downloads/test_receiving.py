"""Bytes straight from the socket of a plain connection, and through Python's layers elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llamactl.downloads import receiving
from tests.downloads.conftest import FILE, PAYLOAD, SMALL, Site
from tests.fakes.fake_hub import FakeHub, seeded_bytes


def test_a_connection_serves_one_piece_after_the_other(site: Site) -> None:
    site.assert_complete(site.download())
    requests = site.byte_requests()
    assert len({request.connection for request in requests}) <= 4 < len(requests)


def test_through_pythons_layers_the_bytes_come_all_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "AVAILABLE", False)
    site.assert_complete(site.download())
    requests = site.byte_requests()
    assert len({request.connection for request in requests}) <= 4 < len(requests)


def test_a_cut_connection_goes_on_at_the_very_byte_through_pythons_layers(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "AVAILABLE", False)
    site.hub.fault("cdn", ".", kind="cut", after=40_000, ending="fin", times=None)
    site.assert_complete(site.download())
    assert site.hub.bytes_sent("cdn") == len(PAYLOAD)


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
