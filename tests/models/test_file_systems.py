"""File systems without hard links, without links at all, and two of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from llamactl.models import disk
from llamactl.models.reference import ModelRef
from tests.models import offline
from tests.models.conftest import (
    COMMIT,
    NEXT_COMMIT,
    Q4,
    REPO,
    REPOSITORY,
    SHARDS,
    Caches,
    content_of,
    hub_file,
    listing_of,
)


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_the_hubs_side_points_to_the_flat_file(caches: Caches) -> None:
    listing = listing_of(REPOSITORY)
    caches.download(f"{REPO}:Q6_K", listing)
    for name in SHARDS:
        flat, blob = caches.flat_path(REPO, name), caches.blob(name)
        assert not flat.is_symlink()
        assert blob.readlink() == flat
    assert offline.find(caches.hub, REPO, "Q6_K") == [content_of(name) for name in SHARDS]
    assert scan_cache_dir(caches.hub).warnings == []
    [model] = caches.cache.list()
    assert [file.sha256 for file in model.files[:3]] == [hub_file(name).oid for name in SHARDS]
    assert model.gguf.path == caches.flat_path(REPO, SHARDS[0])
    caches.download(f"{REPO}:Q6_K", listing, contents={})
    (caches.repo_dir() / "refs" / "v1").write_text(COMMIT)
    caches.users.append("chat")
    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY, 2), commit=NEXT_COMMIT)
    caches.users.clear()
    assert offline.find(caches.hub, REPO, "Q6_K") == [content_of(name, 2) for name in SHARDS]
    # The links under the old digests would lead to the new bytes.
    assert not any(caches.blob(name).is_symlink() for name in SHARDS)
    assert scan_cache_dir(caches.hub).warnings == []
    caches.cache.delete(REPO, None)
    assert caches.tree() == set()


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_what_others_fetched_stays_where_it_is(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4])
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]), contents={})
    assert caches.flat_path(REPO, Q4).readlink() == caches.blob(Q4)
    assert caches.cache.list()[0].gguf.path == caches.flat_path(REPO, Q4)


@pytest.mark.usefixtures("no_hard_links")
def test_without_any_links_the_flat_files_are_there(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY))
    assert caches.shown() == [f"{REPO}:Q6_K"]
    assert caches.cache.gguf_path(ModelRef(REPO, "Q6_K")) == caches.flat_path(REPO, SHARDS[0])
    assert offline.find(caches.hub, REPO, "Q6_K") is None


def test_without_symlinks_a_snapshot_holds_hard_links(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EPERM, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    assert (caches.snapshot() / Q4).samefile(caches.flat_path(REPO, Q4))
    assert offline.find(caches.hub, REPO, "Q4_K_M") == [content_of(Q4)]
    caches.cache.delete(REPO, "Q4_K_M")
    assert caches.tree() == set()


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than the test's own."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to try")
    folder = other / f"llamactl-test-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        disk.remove_tree(other, folder)


def test_two_file_systems_hold_one_copy(caches: Caches, far: Path) -> None:
    caches.hub.symlink_to(far)
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    assert caches.blob(Q4).is_symlink()
    assert caches.shown() == [f"{REPO}:Q4_K_M"]
    assert offline.find(caches.hub, REPO) == [content_of(Q4)]
    caches.cache.delete(REPO, None)
    assert list(far.iterdir()) == []


def test_a_file_gets_its_final_name_on_another_file_system_too(tmp_path: Path, far: Path) -> None:
    source, place = tmp_path / "part", far / "model.gguf"
    source.write_bytes(content_of(Q4))
    source.chmod(0o640)
    disk.move(source, place)
    assert place.read_bytes() == content_of(Q4)
    assert place.stat().st_mode & 0o777 == 0o640
    assert not source.exists()
    assert list(far.iterdir()) == [place]
