"""Names that clash, disks that refuse, and links planted where a folder should be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llamactl.errors import (
    BadMetadata,
    CacheNotWritable,
    InsufficientSpace,
    NameCollision,
)
from llamactl.models.hubfile import HubFile
from tests.models import offline
from tests.models.conftest import (
    COMMIT,
    Q4,
    Q8,
    REPO,
    Caches,
    content_of,
    hub_file,
    listing_of,
)


def test_two_repositories_whose_flat_names_would_be_one_are_refused(caches: Caches) -> None:
    caches.download("a_b/c:Q4_K_M", listing_of([Q4]))
    with pytest.raises(NameCollision, match="a_b/c"):
        caches.cache.check_collision("a/b_c")
    with pytest.raises(NameCollision):
        caches.download("a/b_c:Q8_0", listing_of([Q8]))
    caches.cache.check_collision("a_b/c", [Q4, Q8])
    caches.cache.check_collision("a/b")
    assert caches.shown() == ["a_b/c:Q4_K_M"]


def test_two_files_whose_flat_names_would_be_one_are_refused(caches: Caches) -> None:
    caches.download("a/b:c_m.gguf", listing_of(["c_m.gguf"]))
    with pytest.raises(NameCollision, match="a/b"):
        caches.cache.check_collision("a/b_c", ["m.gguf"])
    with pytest.raises(NameCollision, match="one name"):
        caches.cache.check_collision(REPO, ["x/m.gguf", "x_m.gguf"])
    with pytest.raises(NameCollision):
        caches.deliver("a/b_c", hub_file("m.gguf"))


def test_a_name_that_no_file_system_takes_is_refused_early(caches: Caches) -> None:
    with pytest.raises(BadMetadata, match="too long"):
        caches.cache.check_collision(REPO, ["d" * 150 + "/" + "x" * 150 + ".gguf"])


def test_a_directory_that_cannot_be_written_is_named(caches: Caches, tmp_path: Path) -> None:
    caches.hub.write_text("a file")
    with pytest.raises(CacheNotWritable, match="hub"):
        caches.cache.check_writable()
    caches.hub.unlink()
    caches.cache.check_writable()
    assert caches.tree() == set()


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, InsufficientSpace),
        (errno.EDQUOT, InsufficientSpace),
        (errno.EROFS, CacheNotWritable),
        (errno.EACCES, CacheNotWritable),
        (errno.EIO, CacheNotWritable),
    ],
)
def test_what_the_disk_refuses_becomes_an_error_with_a_remedy(
    caches: Caches, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    caches.deliver(REPO, hub_file(Q4))

    def refuse(*_args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(error) as caught:
        caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]), contents={})
    assert str(caches.flat) in str(caught.value)
    assert offline.find(caches.hub, REPO) is None


def test_free_space_is_told_before_the_directory_exists(caches: Caches) -> None:
    assert caches.cache.free_space() > 0
    assert not caches.flat.exists()


def test_a_link_in_place_of_a_folder_is_not_written_through(caches: Caches, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    caches.repo_dir().mkdir(parents=True)
    (caches.repo_dir() / "blobs").symlink_to(outside)
    with pytest.raises(CacheNotWritable, match="blobs"):
        caches.cache.publish_file(
            REPO, COMMIT, hub_file(Q4), _part(tmp_path, hub_file(Q4)), etag=""
        )
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["", "blobs", "snapshots", "refs"])
def test_a_link_in_place_of_a_folder_is_known_before_anything_is_fetched(
    caches: Caches, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    caches.cache.check_writable(REPO)
    link = caches.repo_dir() / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(CacheNotWritable, match=link.name):
        caches.cache.check_writable(REPO)
    assert list(outside.iterdir()) == []


def _part(folder: Path, file: HubFile) -> Path:
    path = folder / f"{file.oid}.incomplete"
    path.write_bytes(content_of(file.filename))
    return path
