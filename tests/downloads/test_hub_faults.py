"""What a hub does to a download before and between its bytes, one test for each fault."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llamactl.downloads.partfile import PartFile
from llamactl.hub.limits import LONGEST
from llamactl.models.reference import ModelRef
from tests.conftest import ConfigFactory
from tests.downloads.conftest import FILE, PAYLOAD, REF, REPO, Site, slow_job
from tests.downloads.waiting import LONG
from tests.fakes import fake_hub_http
from tests.fakes.fake_hub import FakeHub, Request, seeded_bytes
from tests.fakes.fake_hub_faults import Answer

SHARDS = {f"m-Q8_0-0000{n}-of-00002.gguf": seeded_bytes(400_000, f"shard {n}") for n in (1, 2)}


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_each_route_of_the_hub_may_fail_twice_and_its_pages_are_never_saved(
    site: Site, status: int
) -> None:
    for route in ("/refs", "/tree/", "/manifests/", "/resolve/"):
        page = b"<html>bad gateway</html>"
        site.hub.fault("hub", route, kind="status", status=status, body=page, times=2)
    site.assert_complete(site.download())


def test_a_resolve_that_is_rate_limited_for_a_moment_goes_on_after_it(site: Site) -> None:
    moment = {"RateLimit": '"resolvers";r=0;t=0'}
    site.hub.fault("hub", "/resolve/", kind="status", status=429, headers=moment, times=2)
    site.assert_complete(site.download())
    assert len(site.hub.requests("hub", "/resolve/")) == 3


@pytest.mark.parametrize("asked", ["86400", "Sun, 06 Nov 2094 08:49:37 GMT"])
def test_a_retry_after_of_a_day_is_no_wait_of_a_day(site: Site, asked: str) -> None:
    headers = {"Retry-After": asked}
    site.hub.fault("cdn", ".", kind="status", status=503, headers=headers, times=None)
    job = site.submit()
    seen = site.until(job.job.id, lambda seen: seen.progress.detail == "retrying")
    assert seen.progress.retry_at is not None
    assert seen.progress.retry_at <= time.time() + LONGEST
    site.queue.delete(job.job.id)


def test_the_page_of_a_missing_file_is_never_saved(site: Site) -> None:
    headers = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
    site.hub.fault(
        "hub",
        "/resolve/",
        kind="status",
        status=404,
        headers=headers,
        body=b"Entry not found",
        times=None,
    )
    job = site.download()
    assert (job.job.status, job.job.error_code) == ("failed", "not_found")
    assert FILE in (job.job.error or "")
    assert everything(site) == []


def test_a_renamed_repository_is_followed_and_kept_under_the_name_that_was_asked_for(
    hub: FakeHub, site: Site
) -> None:
    hub.rename("Old/Name-GGUF", REPO)
    hub.routes.repos[REPO].private = True
    site.token = hub.token
    job = site.download(ModelRef("Old/Name-GGUF", "Q4_K_M"))
    assert (job.job.status, job.job.error) == ("completed", None)
    assert site.bytes_of(FILE, "Old/Name-GGUF") == PAYLOAD
    assert [path.name for path in site.root.glob("models--*")] == ["models--Old--Name-GGUF"]


@pytest.mark.parametrize("header", ["X-Linked-Size", "X-Linked-ETag"])
def test_a_file_that_is_not_the_listed_one_is_refused_before_its_first_byte(
    site: Site, header: str
) -> None:
    other = {"X-Linked-Size": "17", "X-Linked-ETag": f'"{"ab" * 32}"'}[header]
    site.hub.fault("hub", "/resolve/", kind="headers", headers={header: other}, times=None)
    job = site.download()
    assert (job.job.status, job.job.error_code) == ("failed", "bad_metadata")
    assert site.byte_requests() == []
    assert everything(site) == []


def test_the_old_model_stays_whole_until_the_new_one_is_verified(site: Site) -> None:
    site.assert_complete(site.download())
    old = site.cache.hub.ref(REPO).read_text()
    newer = seeded_bytes(len(PAYLOAD), "newer")
    commit = site.hub.push(REPO, {FILE: newer})
    job_id = slow_job(site)
    assert site.cache.hub.ref(REPO).read_text() == old
    assert (site.cache.hub.snapshot(REPO, old) / FILE).read_bytes() == PAYLOAD
    assert not site.cache.hub.snapshot(REPO, commit).exists()
    assert site.bytes_of() == PAYLOAD
    site.hub.throttle(None)
    site.assert_complete(site.queue.wait(job_id, LONG), newer)
    assert site.cache.hub.ref(REPO).read_text() == commit


def test_a_partial_that_was_complete_when_the_process_died_needs_no_request(site: Site) -> None:
    site.start()
    entry = site.hub.routes.repos[REPO].commits[site.hub.routes.repos[REPO].main][FILE]
    part = PartFile(site.cache.partial_path(REPO, entry.oid), len(PAYLOAD), entry.oid)
    part.write(PAYLOAD, 0)
    part.record()
    part.close()
    site.assert_complete(site.download())
    assert site.byte_requests() == []


def test_a_set_whose_second_shard_fails_is_not_seen_and_a_retry_fetches_only_that(
    hub: FakeHub, site: Site
) -> None:
    repo = hub.add_repo("org/set-GGUF", SHARDS)
    first, second = (repo.commits[repo.main][name] for name in SHARDS)
    fault = hub.fault("cdn", second.content.xet_hash, kind="status", status=403, times=None)
    failed = site.download(ModelRef("org/set-GGUF", "Q8_0"))
    assert failed.job.status == "failed"
    assert not site.cache.hub.ref("org/set-GGUF").exists()
    assert list(site.cache.hub.snapshots("org/set-GGUF").glob("*")) == []
    assert site.cache.list() == []
    fault.times = 0
    hub.clear_log()
    done = site.queue.wait(site.queue.retry(failed.job.id).job.id, LONG)
    assert (done.job.status, done.job.error) == ("completed", None)
    for name, content in SHARDS.items():
        assert site.bytes_of(name, "org/set-GGUF") == content
    assert hub.requests("cdn", first.content.xet_hash) == []


def test_a_set_that_lacks_a_shard_is_refused_before_the_first_byte(
    hub: FakeHub, site: Site
) -> None:
    name, content = next(iter(SHARDS.items()))
    hub.add_repo("org/set-GGUF", {name: content})
    job = site.download(ModelRef("org/set-GGUF", "Q8_0"))
    assert (job.job.status, job.job.error_code) == ("failed", "incomplete_set")
    assert site.byte_requests() == []


@pytest.mark.parametrize(
    "path", ["../x-Q4_K_M.gguf", "/tmp/x-Q4_K_M.gguf", "a/../../b-Q4_K_M.gguf"]
)
def test_a_listing_that_leads_out_of_the_cache_fails_the_job(site: Site, path: str) -> None:
    def hostile(rows: list[dict[str, object]]) -> list[dict[str, object]]:
        return [{**row, "path": path} for row in rows]

    site.hub.routes.repos[REPO].rewrite_rows = hostile
    site.hub.routes.manifests = False
    job = site.download()
    assert (job.job.status, job.job.error_code) == ("failed", "bad_metadata")
    assert site.byte_requests() == []
    assert everything(site) == []


@pytest.mark.parametrize("stem", ["a b", "50%", "#1", "what?", "+&=", "größe/模型", "a%20b", "..a"])
def test_an_odd_name_is_fetched_to_its_own_place(hub: FakeHub, site: Site, stem: str) -> None:
    name, content = f"{stem}-Q4_K_M.gguf", seeded_bytes(50_000, stem)
    repo = hub.add_repo("org/odd", {name: content})
    job = site.download(ModelRef("org/odd", "Q4_K_M"))
    assert (job.job.status, job.job.error) == ("completed", None)
    assert site.bytes_of(name, "org/odd") == content
    assert (site.cache.hub.snapshot("org/odd", repo.main) / name).read_bytes() == content


def test_a_listing_in_pages_is_read_to_its_end(hub: FakeHub, site: Site) -> None:
    hub.routes.page_size = 2
    hub.routes.manifests = False
    names = [f"z-{n:02}-Q8_0.gguf" for n in range(7)]
    hub.add_repo("org/many", {**dict.fromkeys(names, b"GGUF other"), "zz-Q4_K_M.gguf": PAYLOAD})
    job = site.download(ModelRef("org/many", "Q4_K_M"))
    assert (job.job.status, job.job.error) == ("completed", None)
    assert site.bytes_of("zz-Q4_K_M.gguf", "org/many") == PAYLOAD
    assert len(hub.requests("hub", "/tree/")) == 4


def test_a_hub_that_speaks_http_1_0_is_understood(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_hub_http._Handler, "protocol_version", "HTTP/1.0")
    site.assert_complete(site.download())


@pytest.mark.parametrize("spelled", [str.lower, str.upper])
def test_the_spelling_of_headers_does_not_matter(site: Site, spelled: Callable[[str], str]) -> None:
    for origin in (site.hub._hub, site.hub._cdn):
        origin.answer = respelled(origin.answer, spelled)
    site.assert_complete(site.download())
    assert site.hub.bytes_sent("cdn") == len(PAYLOAD)


def respelled(
    answer: Callable[[Request], Answer], spelled: Callable[[str], str]
) -> Callable[[Request], Answer]:
    def answered(request: Request) -> Answer:
        given = answer(request)
        given.headers = {spelled(name): value for name, value in given.headers.items()}
        return given

    return answered


def test_a_hub_and_a_cdn_at_ipv6_addresses_serve_bytes(make_config: ConfigFactory) -> None:
    if not socket.has_ipv6 or not _listens_on_ipv6():
        pytest.skip("there is no IPv6 here")
    with FakeHub(host="::1") as hub:
        hub.add_repo(REPO, {FILE: PAYLOAD})
        site = Site(hub, make_config)
        try:
            site.assert_complete(site.download())
        finally:
            site.stop()
        assert hub.leaks == []


def test_no_file_no_log_and_no_error_has_the_token_or_a_signature(
    hub: FakeHub, site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.routes.repos[REPO].private = True
    site.token = hub.token
    hub.fault("cdn", ".", kind="cut", after=30_000, times=4)
    hub.fault("cdn", ".", kind="status", status=403, nth=9, times=None)
    failed = site.download()
    assert failed.job.status == "failed"
    hub.clear_faults()
    site.assert_complete(site.queue.wait(site.queue.retry(failed.job.id).job.id, LONG))
    told = [caplog.text, failed.job.error or "", str(site.queue.jobs())]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".gguf"]
    assert any(path.name == "llamactl.db" for path in files)
    for secret in (hub.token, "Signature="):
        assert [text for text in told if secret in text] == []
        assert [path.name for path in files if secret.encode() in path.read_bytes()] == []


def test_two_threads_that_submit_the_same_bytes_at_once_fetch_them_once(
    hub: FakeHub, site: Site
) -> None:
    hub.throttle(1_000_000)
    site.start()
    jobs: list[str] = []
    refs = [REF, ModelRef(REPO, FILE)]
    threads = [
        threading.Thread(target=lambda ref=ref: jobs.append(site.submit(ref).job.id))
        for ref in refs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [site.queue.wait(job_id, LONG).job.status for job_id in jobs] == ["completed"] * 2
    assert hub.bytes_sent("cdn") == len(PAYLOAD)


def everything(site: Site) -> list[Path]:
    """Every file in both caches."""
    tops = (site.flat, site.root)
    return [Path(top, name) for each in tops for top, _, names in os.walk(each) for name in names]


def _listens_on_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
