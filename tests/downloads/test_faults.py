"""What servers do to bytes on their way, one test for each fault; the file is right every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamactl.downloads.partfile import sidecar_of
from tests.downloads.conftest import FILE, PAYLOAD, REPO, Site, slow_job
from tests.fakes.fake_hub import FakeHub, Request, seeded_bytes
from tests.fakes.fake_hub_faults import Answer


def total_sent(site: Site) -> int:
    return site.hub.bytes_sent("cdn")


def asked_since(site: Site, earlier: int) -> int:
    """How many bytes the requests asked for that came after the first ``earlier`` ones."""
    ranges = [request.byte_range for request in site.byte_requests()[earlier:]]
    return sum(last + 1 - first for first, last in filter(None, ranges))


@pytest.mark.parametrize("ending", ["rst", "fin"])
def test_a_connection_that_is_cut_goes_on_at_the_very_byte(site: Site, ending: str) -> None:
    site.hub.fault("cdn", ".", kind="cut", after=70_000, ending=ending, nth=2)
    site.assert_complete(site.download())
    if ending == "fin":
        # A reset may throw away what the kernel had received already; an end may not.
        assert total_sent(site) == len(PAYLOAD)


def test_every_connection_cut_again_and_again_still_completes(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="cut", after=40_000, ending="fin", times=None)
    site.assert_complete(site.download())
    assert total_sent(site) == len(PAYLOAD)


def test_fewer_bytes_than_the_content_length_are_never_counted_as_all(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="cut", after=10, ending="fin", times=3)
    site.assert_complete(site.download())


def test_a_body_without_length_that_ends_early_is_noticed(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="no_length", after=50_000, times=3)
    site.assert_complete(site.download())


def test_a_chunked_body_that_ends_early_is_noticed(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="chunked", after=50_000, times=3)
    site.assert_complete(site.download())


def test_chunked_bodies_are_as_good_as_others(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="chunked", times=None)
    site.assert_complete(site.download())
    assert total_sent(site) == len(PAYLOAD)


def test_more_bytes_than_the_range_are_not_written(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="long", extra=5_000, times=None)
    site.assert_complete(site.download())


def test_one_answer_that_ignores_the_range_is_not_appended(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="ignore_range", nth=3)
    site.assert_complete(site.download())


def test_a_server_without_ranges_is_read_as_one_stream(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="ignore_range", times=None)
    site.assert_complete(site.download())
    assert "range" not in site.byte_requests()[-1].headers


def test_a_stream_without_ranges_that_is_cut_keeps_what_came(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="cut", after=1_500_000, ending="fin", nth=9)
    site.hub.fault("cdn", ".", kind="ignore_range", times=None)
    site.assert_complete(site.download())


def test_a_200_with_a_right_content_range_is_taken_by_its_range(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="slice_200", times=None)
    site.assert_complete(site.download())
    assert total_sent(site) == len(PAYLOAD)


def test_a_shifted_content_range_is_discarded_and_asked_again(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="shifted", times=5)
    site.assert_complete(site.download())


def test_ranges_that_are_always_shifted_end_in_an_error_that_says_so(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="shifted", times=None)
    job = site.download()
    assert (job.job.status, job.job.error_code) == ("failed", "network")
    assert "the server sent bytes" in (job.job.error or "")


def test_a_206_of_another_total_has_the_address_asked_anew(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="wrong_total", times=2)
    site.assert_complete(site.download())
    assert len(site.hub.requests("hub", "/resolve/")) > 1


def test_a_206_without_content_range_is_discarded(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="headers", drop=("Content-Range",), times=3)
    site.assert_complete(site.download())


def test_multipart_ranges_are_refused(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="multipart", times=3)
    site.assert_complete(site.download())


def test_compressed_bytes_are_refused_and_the_header_is_named(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="gzip", times=None)
    job = site.download()
    assert (job.job.status, job.job.error_code) == ("failed", "network")
    assert "Content-Encoding: gzip" in (job.job.error or "")


def test_compressed_bytes_now_and_then_do_no_harm(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="gzip", times=3)
    site.assert_complete(site.download())


def test_every_byte_request_asks_for_identity_and_one_closed_range(site: Site) -> None:
    site.assert_complete(site.download())
    for request in site.byte_requests():
        assert request.headers["accept-encoding"] == "identity"
        assert request.byte_range is not None


def test_no_byte_is_fetched_twice_without_a_fault(site: Site) -> None:
    site.assert_complete(site.download())
    assert total_sent(site) == len(PAYLOAD)


def test_a_416_of_another_size_has_the_address_asked_anew(site: Site) -> None:
    site.hub.fault(
        "cdn", ".", kind="status", status=416, headers={"Content-Range": "bytes */17"}, times=2
    )
    site.assert_complete(site.download())
    assert len(site.hub.requests("hub", "/resolve/")) > 1


def test_addresses_that_expire_midway_are_resolved_once_for_all_connections(site: Site) -> None:
    job_id = slow_job(site)
    site.hub.expire_urls()
    site.hub.throttle(None)
    site.assert_complete(site.queue.wait(job_id))
    assert len(site.hub.requests("hub", "/resolve/")) == 2
    assert total_sent(site) < len(PAYLOAD) + 5_000


def test_a_403_of_every_range_ends_in_a_single_stream(site: Site) -> None:
    usual = site.hub.cdn_routes.answer

    def refuse_ranges(request: Request) -> Answer:
        if "range" in request.headers:
            return Answer.of(403, b"Auth failed: invalid range")
        return usual(request)

    site.hub.cdn_routes.answer = refuse_ranges  # type: ignore[method-assign]  # a fault of its own
    site.assert_complete(site.download())
    assert len(site.hub.requests("hub", "/resolve/")) <= 5


def test_a_lasting_403_fails_soon_and_shows_what_the_server_says(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="status", status=403, body=b"<Denied/> by fate", times=None)
    job = site.download()
    assert (job.job.status, job.job.error_code) == ("failed", "network")
    assert "<Denied/> by fate" in (job.job.error or "")
    assert len(site.hub.requests("hub", "/resolve/")) <= 5


def test_a_lasting_400_fails_without_a_storm_of_retries(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="status", status=400, body=b"file too large", times=None)
    job = site.download()
    assert job.job.status == "failed"
    assert "file too large" in (job.job.error or "")
    assert len(site.byte_requests()) < 40


def test_a_failed_transfer_keeps_its_bytes_for_the_retry(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="status", status=403, nth=5, times=None)
    failed = site.download()
    assert failed.job.status == "failed"
    kept = failed.progress.bytes_downloaded
    assert kept > 0
    site.hub.clear_faults()
    earlier = len(site.byte_requests())
    site.assert_complete(site.queue.wait(site.queue.retry(failed.job.id).job.id))
    assert asked_since(site, earlier) == len(PAYLOAD) - kept


def test_a_busy_server_gets_fewer_connections_and_delivers(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="status", status=503, times=6)
    site.assert_complete(site.download())


def test_a_429_with_a_retry_after_is_waited_out_and_shown(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="status", status=429, headers={"Retry-After": "1"}, times=4)
    job = site.submit()
    seen = site.until(job.job.id, lambda seen: seen.progress.detail == "rate_limited")
    assert seen.progress.retry_at is not None
    site.assert_complete(site.queue.wait(job.job.id))


@pytest.mark.parametrize("value", ["nan", "-5", "soon", "1e9"])
def test_a_retry_after_that_makes_no_sense_is_survived(site: Site, value: str) -> None:
    site.hub.fault("cdn", ".", kind="status", status=503, headers={"Retry-After": value}, times=2)
    site.assert_complete(site.download())


def test_a_long_rate_limit_of_a_resolve_is_shown_and_waited_out_by_all(site: Site) -> None:
    site.hub.fault(
        "hub",
        "/resolve/",
        kind="status",
        status=429,
        headers={"RateLimit": '"resolvers";r=0;t=60'},
        times=None,
    )
    job = site.submit()
    seen = site.until(job.job.id, lambda seen: seen.progress.detail == "rate_limited")
    assert seen.progress.retry_at is not None
    assert len(site.hub.requests("hub", "/resolve/")) == 1, "all connections wait together"
    site.queue.delete(job.job.id)
    assert site.queue.job(job.job.id).job.status == "cancelled"


def test_error_pages_of_the_hub_are_retried_and_never_saved(site: Site) -> None:
    for status in (503, 500):
        site.hub.fault("hub", ".", kind="status", status=status, body=b"<html>oops", times=1)
    site.assert_complete(site.download())


def test_a_resolve_that_names_another_digest_stops_before_the_first_byte(site: Site) -> None:
    site.hub.fault(
        "hub", "/resolve/", kind="headers", headers={"X-Linked-ETag": f'"{"ab" * 32}"'}, times=None
    )
    job = site.download()
    assert (job.job.status, job.job.error_code) == ("failed", "bad_metadata")
    assert site.byte_requests() == []
    assert site.leftovers() == []


def test_another_etag_of_the_cdn_for_the_same_content_changes_nothing(site: Site) -> None:
    job_id = slow_job(site)
    site.hub.cdn_routes.etag_salt = "another edge"
    site.hub.expire_urls()
    site.hub.throttle(None)
    site.assert_complete(site.queue.wait(job_id))
    assert total_sent(site) < len(PAYLOAD) + 5_000


def test_one_flipped_bit_is_found_and_the_file_fetched_again(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="flip", after=1000, nth=3)
    site.assert_complete(site.download())
    assert total_sent(site) == 2 * len(PAYLOAD)


def test_a_flipped_bit_in_each_try_fails_and_leaves_nothing(site: Site) -> None:
    site.hub.fault("cdn", "bridge", kind="flip", after=1000, times=None)
    job = site.download()
    assert (job.job.status, job.job.error_code) == ("failed", "checksum_mismatch")
    assert site.leftovers() == []
    assert not site.cache.flat.path(REPO, FILE).exists()
    assert list(site.root.rglob("blobs/*")) == []


def test_a_download_after_a_mismatch_starts_clean(site: Site) -> None:
    fault = site.hub.fault("cdn", "bridge", kind="flip", after=1000, times=None)
    failed = site.download()
    fault.times = 0
    site.assert_complete(site.queue.wait(site.queue.retry(failed.job.id).job.id))


def test_a_server_that_speaks_http_1_0_style_closes_each_time(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="headers", headers={"Connection": "close"}, times=None)
    site.assert_complete(site.download())


def test_an_unreadable_content_length_is_no_length(site: Site) -> None:
    site.hub.fault("cdn", ".", kind="headers", headers={"Content-Length": "abc"}, times=2)
    site.assert_complete(site.download())


def test_a_mirror_that_sends_the_bytes_itself_works(site: Site) -> None:
    site.hub.routes.direct = True
    site.hub.routes.manifests = False
    site.assert_complete(site.download())
    assert site.byte_requests() == []


def test_a_private_repository_keeps_its_token_from_the_cdn(hub: FakeHub, site: Site) -> None:
    hub.routes.repos[REPO].private = True
    site.token = hub.token
    site.assert_complete(site.download())
    assert hub.leaks == []


def test_the_middle_of_a_file_moves_main_and_the_old_bytes_are_not_mixed_in(site: Site) -> None:
    job_id = slow_job(site)
    site.queue.pause(job_id)
    newer = seeded_bytes(len(PAYLOAD), "newer")
    site.hub.push(REPO, {FILE: newer})
    site.hub.throttle(None)
    # The job keeps the commit that it began with ...
    resumed = site.queue.wait(site.queue.resume(job_id).job.id)
    site.assert_complete(resumed, PAYLOAD)
    # ... and the next one takes today's.
    site.assert_complete(site.download(), newer)


def test_main_moves_without_the_file_and_no_byte_is_fetched(site: Site) -> None:
    site.assert_complete(site.download())
    before = total_sent(site)
    commit = site.hub.push(REPO, {"README.md": b"# Better words\n"})
    site.assert_complete(site.download())
    assert total_sent(site) == before
    assert (site.cache.hub.snapshot(REPO, commit) / FILE).read_bytes() == PAYLOAD
    assert site.cache.hub.ref(REPO).read_text() == commit


def test_a_cached_model_completes_without_a_byte(site: Site) -> None:
    site.assert_complete(site.download())
    before = len(site.byte_requests())
    site.assert_complete(site.download())
    assert len(site.byte_requests()) == before


@pytest.mark.parametrize("garbage", [b"", b"{", b"[1,2]", b'{"format":1}', b"\x00" * 100])
def test_a_garbled_sidecar_means_starting_over(site: Site, garbage: bytes) -> None:
    part = interrupted_part(site)
    sidecar_of(part).write_bytes(garbage)
    earlier = len(site.byte_requests())
    finish(site)
    assert asked_since(site, earlier) == len(PAYLOAD)


def test_a_sidecar_without_its_partial_means_starting_over(site: Site) -> None:
    interrupted_part(site).unlink()
    earlier = len(site.byte_requests())
    finish(site)
    assert asked_since(site, earlier) == len(PAYLOAD)


def test_a_partial_that_was_spoiled_on_the_disk_is_found_out(site: Site) -> None:
    part = interrupted_part(site)
    with part.open("r+b") as stream:
        stream.write(b"rubbish")
    finish(site)


def test_an_interrupted_download_fetches_only_the_rest(site: Site) -> None:
    interrupted_part(site)
    have = site.queue.jobs()[0].progress.bytes_downloaded
    earlier = len(site.byte_requests())
    finish(site)
    assert asked_since(site, earlier) == len(PAYLOAD) - have


def interrupted_part(site: Site) -> Path:
    """Pause a download in the middle; its partial."""
    site.queue.pause(slow_job(site))
    site.hub.throttle(None)
    (part,) = (path for path in site.leftovers() if not path.name.endswith("ranges.incomplete"))
    return part


def finish(site: Site) -> None:
    job = site.queue.jobs()[0]
    site.assert_complete(site.queue.wait(site.queue.resume(job.job.id).job.id))
