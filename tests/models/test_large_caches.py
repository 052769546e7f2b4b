"""Lists of many models: what did not change is not read again, and whatever did is seen."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llamactl.config import Config
from llamactl.models import offer, remembered
from llamactl.models.filenames import is_mmproj
from llamactl.models.hubscan import HubScanner, Snapshots
from tests.models.conftest import (
    NEXT_COMMIT,
    Q4,
    Q8,
    REPO,
    SHARDS,
    Caches,
    hub_file,
    listing_of,
)


def test_changes_by_other_programs_are_seen_in_the_next_list(
    caches: Caches, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    probe = tmp_path / "probe"

    def settle() -> None:
        """Return when a change has another time than all before it."""
        start = time.time_ns()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            probe.write_text("")
            if probe.stat().st_mtime_ns > start:
                return
        raise AssertionError("the file system's clock stands still")

    def listed() -> list[str]:
        settle()
        assert caches.shown() == caches.shown()
        settle()
        return caches.shown()

    caches.hf_download(REPO, [Q4])
    assert listed() == [f"{REPO}:Q4_K_M"]
    caches.hf_download(REPO, SHARDS[:2])
    assert listed() == [f"{REPO}:Q4_K_M", f"{REPO}:Q6_K?"]
    caches.hf_download(REPO, SHARDS[2:])
    assert listed() == [f"{REPO}:Q4_K_M", f"{REPO}:Q6_K"]
    caches.hf_download(REPO, [Q8], commit=NEXT_COMMIT)
    assert listed() == [f"{REPO}:Q4_K_M", f"{REPO}:Q6_K", f"{REPO}:Q8_0"]
    caches.older_llama_cpp(REPO, "latest", [Q4])
    assert listed()[0] == f"{REPO}:latest"
    caches.older_llama_cpp("a/Old-GGUF", "latest", ["Old-Q8_0.gguf"])
    assert listed()[0] == "a/Old-GGUF:latest"
    old = caches.flat_path("a/Old-GGUF", "Old-Q8_0.gguf")
    old.write_bytes(b"GGUF, longer than it was before" * 100)
    listed()
    assert caches.cache.list()[0].total_size == old.stat().st_size
    old.rename(f"{old}.downloadInProgress")
    assert listed()[0] == f"{REPO}:latest"
    (caches.repo_dir() / "blobs" / hub_file(SHARDS[1]).oid).unlink()
    assert f"{REPO}:Q6_K?" in listed()


def test_a_thousand_models_are_listed_without_reading_them_again(
    config: Config, caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    for number in range(1000):
        caches.hf_download(f"org/Model-{number}-GGUF", [f"Model-{number}-Q8_0.gguf"])
    time_of_last_change = time.time_ns()
    while time.time_ns() == time_of_last_change:
        pass
    first = caches.cache.list()
    second = caches.cache.list()
    assert len(first) == 1000
    same = sum(new is old for new, old in zip(second, first, strict=True))
    # The last ones may have been written in the same tick of the file system's clock.
    assert same > 900


def test_lists_of_many_threads_bear_with_models_that_come_and_go(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    finished = threading.Event()

    def list_on() -> int:
        lists = 0
        while not finished.is_set():
            assert f"{REPO}:Q4_K_M" in caches.shown()
            lists += 1
        return lists

    with ThreadPoolExecutor(2) as pool:
        listing = [pool.submit(list_on) for _ in range(2)]
        try:
            for round_ in range(2):
                for repo_id in ("a/Other-GGUF", "b/Other-GGUF"):
                    caches.download(repo_id, listing_of(SHARDS), commit=f"{round_:040x}")
                for repo_id in ("a/Other-GGUF", "b/Other-GGUF"):
                    caches.cache.delete(repo_id, None)
        finally:
            finished.set()
        assert sum(done.result() for done in listing) > 0
    assert caches.shown() == [f"{REPO}:Q4_K_M"]


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the Hub's cache that were read, in order."""
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    read: list[str] = []
    real = HubScanner.scan

    def scan(scanner: HubScanner, repo_dir: str) -> Snapshots:
        read.append(repo_dir)
        return real(scanner, repo_dir)

    monkeypatch.setattr(HubScanner, "scan", scan)
    return read


def fill(caches: Caches, count: int) -> list[str]:
    """So many models of ``hf``, and the list of them; their changes are settled on return."""
    for number in range(count):
        caches.hf_download(f"org/Model-{number}-GGUF", [Q8])
    last = time.time_ns()
    probe = caches.hub / "probe"
    while not probe.exists() or probe.stat().st_mtime_ns <= last:
        probe.write_text("")
    return [f"org/Model-{number}-GGUF:Q8_0" for number in range(count)]


def wait_for_the_reader() -> None:
    for thread in threading.enumerate():
        if thread.name == "models-warm":
            thread.join(60)


def test_the_first_list_after_a_start_need_not_read_the_caches(
    caches: Caches, scans: list[str]
) -> None:
    models = fill(caches, 8)
    read: list[int] = []
    caches.cache.start(lambda: read.append(len(scans)))
    try:
        wait_for_the_reader()
        assert read == [len(scans)] == [8]
        assert caches.shown() == models
        assert len(scans) == 8
    finally:
        caches.cache.stop()


def test_a_list_that_comes_while_the_caches_are_read_does_not_read_them_again(
    caches: Caches, scans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = fill(caches, 8)
    begun, go_on = threading.Event(), threading.Event()
    real = HubScanner.repos

    def repos(scanner: HubScanner) -> set[str]:
        begun.set()
        assert go_on.wait(60)
        return real(scanner)

    monkeypatch.setattr(HubScanner, "repos", repos)
    caches.cache.start()
    try:
        assert begun.wait(60)
        with ThreadPoolExecutor(3) as pool:
            listing = [pool.submit(caches.shown) for _ in range(3)]
            go_on.set()
            assert [done.result() for done in listing] == [models] * 3
        assert len(scans) == 8
    finally:
        go_on.set()
        caches.cache.stop()


def test_a_stop_ends_the_reading_of_the_caches_between_two_models(
    caches: Caches, scans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(caches, 8)
    begun, go_on = threading.Event(), threading.Event()
    watched = HubScanner.scan

    def scan(scanner: HubScanner, repo_dir: str) -> Snapshots:
        begun.set()
        assert go_on.wait(60)
        return watched(scanner, repo_dir)

    monkeypatch.setattr(HubScanner, "scan", scan)
    caches.cache.start()
    try:
        assert begun.wait(60)
        caches.cache.stop(timeout=0)
        go_on.set()
        wait_for_the_reader()
        assert len(scans) == 1
    finally:
        go_on.set()
        caches.cache.stop()


def test_models_whose_digests_only_a_hash_tells_are_remembered_until_one_is_known(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    caches.older_llama_cpp(REPO, "Q4_K_M", [Q4])
    fill(caches, 1)
    first, second = caches.cache.list(), caches.cache.list()
    assert all(new is old for new, old in zip(second, first, strict=True))
    caches.cache.confirm(caches.flat_path(REPO, Q4), hub_file(Q4).oid)
    assert [file.sha256 for model in caches.cache.list() for file in model.files] == [
        hub_file(Q8).oid,
        hub_file(Q4).oid,
    ]
    caches.cache.distrust([caches.flat_path(REPO, Q4)])
    assert caches.cache.list()[1].gguf.sha256 is None


def test_a_repository_of_many_models_looks_at_each_name_a_few_times(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches.hf_download(REPO, [f"M{number}-Q8_0.gguf" for number in range(300)])
    looked = 0

    def counted(name: str) -> bool:
        nonlocal looked
        looked += 1
        return is_mmproj(name)

    monkeypatch.setattr(offer, "is_mmproj", counted)
    assert len(caches.cache.list()) == 300
    assert looked == 300
