"""From bytes to a model: one copy under both names, the ref last, and a crash at any moment."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import scan_cache_dir

from llamactl.database import Database
from llamactl.errors import (
    BadMetadata,
    CacheNotWritable,
    ChecksumMismatch,
    InsufficientSpace,
    NameCollision,
)
from llamactl.models import disk
from llamactl.models.cache import ModelCache
from llamactl.models.hubfile import HubFile, Manifest
from llamactl.models.reference import ModelRef
from llamactl.models.selection import select
from tests.models import offline
from tests.models.conftest import (
    COMMIT,
    NEXT_COMMIT,
    REPO,
    Caches,
    CachesFactory,
    content_of,
    hub_file,
    listing_of,
    manifest_of,
)

Q4 = "Model-Q4_K_M.gguf"
Q8 = "Model-Q8_0.gguf"
MMPROJ = "mmproj-F16.gguf"
SHARDS = [f"Q6_K/Model-Q6_K-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
REPOSITORY = [Q4, Q8, MMPROJ, *SHARDS, "preset.ini", "README.md"]


def blob_of(caches: Caches, name: str, version: int = 1) -> Path:
    return caches.repo_dir() / "blobs" / hub_file(name, version).oid


# Names.


def test_a_file_has_both_names_and_one_copy_of_its_bytes(caches: Caches) -> None:
    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY))
    for name in (*SHARDS, MMPROJ):
        flat = caches.flat_path(REPO, name)
        assert flat.samefile(blob_of(caches, name))
        assert flat.stat().st_nlink == 2
        assert flat.read_bytes() == content_of(name)
        link = caches.snapshot() / name
        depth = name.count("/") + 2
        assert str(link.readlink()) == "../" * depth + f"blobs/{hub_file(name).oid}"
        assert flat.with_name(f"{flat.name}.etag").read_text() == f'"etag of {name}"'
    assert (caches.repo_dir() / "refs" / "main").read_bytes() == COMMIT.encode()


def test_the_tree_holds_what_it_should_and_nothing_else(caches: Caches) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of(REPOSITORY), manifest=manifest_of(Q4))
    repo = "hub/models--org--Model-GGUF"
    assert caches.tree() == {
        "flat/manifest=org=Model-GGUF=Q4_K_M.json",
        f"flat/org_Model-GGUF_{Q4}",
        f"flat/org_Model-GGUF_{Q4}.etag",
        f"flat/org_Model-GGUF_{MMPROJ}",
        f"flat/org_Model-GGUF_{MMPROJ}.etag",
        "flat/org_Model-GGUF_preset.ini",
        "flat/org_Model-GGUF_preset.ini.etag",
        f"{repo}/blobs/{hub_file(Q4).oid}",
        f"{repo}/blobs/{hub_file(MMPROJ).oid}",
        f"{repo}/snapshots/{COMMIT}/{Q4}",
        f"{repo}/snapshots/{COMMIT}/{MMPROJ}",
        f"{repo}/refs/main",
    }


def test_hf_reads_what_was_published_without_a_warning(caches: Caches) -> None:
    caches.download(REPO, listing_of(REPOSITORY))
    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY))
    found = scan_cache_dir(caches.hub)
    assert found.warnings == []
    [repo] = found.repos
    assert repo.repo_id == REPO
    [revision] = repo.revisions
    assert revision.commit_hash == COMMIT
    assert revision.refs == {"main"}
    assert {file.file_name for file in revision.files} == {
        name.rpartition("/")[2] for name in (Q4, MMPROJ, *SHARDS)
    }
    assert repo.size_on_disk == sum(len(content_of(name)) for name in (Q4, MMPROJ, *SHARDS))


@pytest.mark.parametrize("tag", ["", "Q4_K_M", "q4_k_m", "Q6_K", "Q8_0"])
def test_llama_server_finds_offline_what_was_published(caches: Caches, tag: str) -> None:
    for ref in (REPO, f"{REPO}:Q6_K", f"{REPO}:Q8_0"):
        caches.download(ref, listing_of(REPOSITORY))
    names = {"Q6_K": SHARDS, "Q8_0": [Q8]}.get(tag, [Q4])
    assert offline.find(caches.hub, REPO, tag) == [content_of(name) for name in names]


def test_the_path_of_the_first_shard_is_returned(caches: Caches) -> None:
    listing = listing_of(REPOSITORY)
    selection = select(ModelRef(REPO, "Q6_K"), listing, None)
    for file in selection.files:
        caches.deliver(REPO, file)
    path = caches.cache.publish(ModelRef(REPO, "Q6_K"), COMMIT, selection, None, listing)
    assert path == caches.flat_path(REPO, SHARDS[0])
    assert caches.cache.gguf_path(ModelRef(REPO, "q6_k")) == path


def test_a_file_gets_the_mode_that_the_umask_gives(caches: Caches) -> None:
    previous = os.umask(0o027)
    try:
        caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    finally:
        os.umask(previous)
    assert stat.S_IMODE(caches.flat_path(REPO, Q4).stat().st_mode) == 0o640


def test_the_preset_lies_in_the_flat_cache_alone(caches: Caches) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4, "preset.ini"]))
    assert caches.flat_path(REPO, "preset.ini").read_bytes() == content_of("preset.ini")
    assert not any("preset" in name for name in offline.cached_files(caches.hub, REPO))
    assert not blob_of(caches, "preset.ini").exists()


# The manifest.


def test_the_manifest_is_kept_as_it_was_received(caches: Caches) -> None:
    for mmproj in (None, MMPROJ):
        received = manifest_of(Q4, mmproj)
        caches.download(f"{REPO}:q4_k_m", listing_of(REPOSITORY), manifest=received)
        path = caches.flat / "manifest=org=Model-GGUF=Q4_K_M.json"
        assert path.read_bytes() == received


def test_without_a_fitting_manifest_one_is_written_that_older_llama_cpp_reads(
    caches: Caches,
) -> None:
    for received in (None, manifest_of("moved-Q4_K_M.gguf")):
        caches.download(REPO, listing_of(REPOSITORY), manifest=received)
        written = (caches.flat / "manifest=org=Model-GGUF=latest.json").read_bytes()
        assert Manifest.parse(written) == Manifest(written, Q4, MMPROJ)
        oid = hub_file(Q4).oid
        assert json.loads(written)["ggufFile"]["lfs"] == {
            "sha256": oid,
            "size": len(content_of(Q4)),
        }


def test_a_tag_that_is_a_path_is_kept_under_a_flat_name(caches: Caches) -> None:
    names = ["a/Model-Q8_0.gguf", "b/Model-Q8_0.gguf"]
    caches.download(f"{REPO}:b/Model-Q8_0.gguf", listing_of(names))
    assert caches.shown() == [f"{REPO}:b/Model-Q8_0.gguf"]
    assert (caches.flat / "manifest=org=Model-GGUF=b=Model-Q8_0.gguf.json").is_file()
    caches.cache.delete(REPO, "b/model-q8_0.gguf")
    assert caches.tree() == set()


# What is there already.


def test_a_second_download_brings_no_byte(caches: Caches) -> None:
    listing = listing_of(REPOSITORY)
    caches.download(f"{REPO}:Q6_K", listing)
    before = {name: caches.flat_path(REPO, name).stat().st_mtime_ns for name in SHARDS}
    for file in listing_of([*SHARDS, MMPROJ, "preset.ini"]):
        assert caches.cache.has(REPO, file) is not None
    caches.download(f"{REPO}:Q6_K", listing, contents={})
    assert {name: caches.flat_path(REPO, name).stat().st_mtime_ns for name in SHARDS} == before


def test_what_hf_fetched_gets_its_flat_name_without_a_byte(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4])
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]), contents={})
    assert caches.flat_path(REPO, Q4).samefile(blob_of(caches, Q4))


def test_what_older_llama_cpp_fetched_gets_its_blob_without_a_byte(caches: Caches) -> None:
    caches.older_llama_cpp(REPO, "Q4_K_M", [Q4])
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]), contents={})
    assert caches.flat_path(REPO, Q4).samefile(blob_of(caches, Q4))
    assert offline.find(caches.hub, REPO, "Q4_K_M") == [content_of(Q4)]
    etag = caches.flat_path(REPO, f"{Q4}.etag")
    assert etag.read_text() == '"0123"'


def test_a_right_size_alone_is_not_believed(caches: Caches) -> None:
    caches.older_llama_cpp(REPO, "Q4_K_M", [Q4])
    flat = caches.flat_path(REPO, Q4)
    damaged = bytearray(flat.read_bytes())
    damaged[7] ^= 1
    flat.write_bytes(damaged)
    assert caches.cache.has(REPO, hub_file(Q4)) is None
    blob = blob_of(caches, Q4)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(damaged)
    assert caches.cache.has(REPO, hub_file(Q4)) is None


def test_a_verified_file_that_was_touched_is_hashed_again(
    caches: Caches, make_caches: CachesFactory
) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    read: list[int] = []
    assert caches.cache.has(REPO, hub_file(Q4), on_bytes=read.append) is not None
    assert make_caches().cache.has(REPO, hub_file(Q4), on_bytes=read.append) is not None
    assert read == []  # the record outlives the process
    os.utime(blob_of(caches, Q4), (1, 1))
    assert caches.cache.has(REPO, hub_file(Q4), on_bytes=read.append) is not None
    assert sum(read) == len(content_of(Q4))


def test_a_distrusted_file_is_hashed_again(caches: Caches) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    read: list[int] = []
    names = [caches.flat_path(REPO, Q4), blob_of(caches, Q4)]
    caches.cache.distrust(names)
    assert caches.cache.has(REPO, hub_file(Q4), on_bytes=read.append) is not None
    assert sum(read) == len(content_of(Q4))


def test_a_damaged_file_is_replaced_in_both_caches(caches: Caches) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    caches.flat_path(REPO, Q4).write_bytes(b"x" * len(content_of(Q4)))
    assert caches.cache.has(REPO, hub_file(Q4)) is None
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    assert caches.flat_path(REPO, Q4).read_bytes() == content_of(Q4)
    assert caches.flat_path(REPO, Q4).samefile(blob_of(caches, Q4))


def test_a_file_that_vanished_before_publication_stops_it(caches: Caches) -> None:
    listing = listing_of([Q4])
    selection = select(ModelRef(REPO), listing, None)
    caches.deliver(REPO, hub_file(Q4))
    caches.flat_path(REPO, Q4).unlink()
    blob_of(caches, Q4).unlink()
    with pytest.raises(ChecksumMismatch):
        caches.cache.publish(ModelRef(REPO), COMMIT, selection, None, listing)
    assert caches.cache.list() == []
    assert not (caches.repo_dir() / "refs").exists()


# When main moves.


def test_unchanged_files_of_other_tags_move_on_with_main(caches: Caches) -> None:
    old = listing_of(REPOSITORY)
    for tag in ("Q4_K_M", "Q8_0", "Q6_K"):
        caches.download(f"{REPO}:{tag}", old)
    caches.hf_download(REPO, ["README.md"])
    new = [hub_file(name, 2 if name in {Q4, Q8} else 1) for name in REPOSITORY]
    caches.download(f"{REPO}:Q4_K_M", new, commit=NEXT_COMMIT)
    assert (caches.repo_dir() / "refs" / "main").read_text() == NEXT_COMMIT
    assert offline.find(caches.hub, REPO, "Q4_K_M") == [content_of(Q4, 2)]
    assert offline.find(caches.hub, REPO, "Q6_K") == [content_of(name) for name in SHARDS]
    # Q8_0 changed as well, but only its old bytes are here: not as a part of the new commit.
    assert offline.find(caches.hub, REPO, "Q8_0") is None
    assert (caches.snapshot(commit=NEXT_COMMIT) / "README.md").exists()
    assert caches.shown() == [f"{REPO}:Q4_K_M", f"{REPO}:Q6_K", f"{REPO}:Q8_0"]
    assert scan_cache_dir(caches.hub).warnings == []


def test_the_bytes_of_an_older_version_do_not_stay(caches: Caches) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of(REPOSITORY))
    caches.download(f"{REPO}:Q8_0", listing_of(REPOSITORY))
    new = [hub_file(name, 2 if name == Q4 else 1) for name in REPOSITORY]
    caches.download(f"{REPO}:Q4_K_M", new, commit=NEXT_COMMIT)
    assert not blob_of(caches, Q4).exists()
    assert not (caches.snapshot() / Q4).is_symlink()
    assert (caches.snapshot() / Q8).exists()
    assert caches.flat_path(REPO, Q4).stat().st_nlink == 2


def test_an_older_version_stays_while_somebody_needs_it(caches: Caches) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    caches.users.append("chat")
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4], 2), commit=NEXT_COMMIT)
    assert (caches.snapshot() / Q4).read_bytes() == content_of(Q4)
    assert caches.snapshot() / Q4 in caches.asked


@pytest.mark.parametrize("published", [True, False])
def test_an_older_version_of_another_program_stays(caches: Caches, published: bool) -> None:
    if published:
        caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
        (caches.repo_dir() / "refs" / "v1").write_text(COMMIT)
    else:
        caches.hf_download(REPO, [Q4])
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4], 2), commit=NEXT_COMMIT)
    assert (caches.snapshot() / Q4).read_bytes() == content_of(Q4)
    assert offline.find(caches.hub, REPO) == [content_of(Q4, 2)]


def test_a_commit_without_a_change_of_the_file_brings_no_byte(caches: Caches) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]), commit=NEXT_COMMIT, contents={})
    assert offline.find(caches.hub, REPO, "Q4_K_M") == [content_of(Q4)]
    assert (caches.repo_dir() / "refs" / "main").read_text() == NEXT_COMMIT


def test_a_preset_that_hf_put_into_a_snapshot_does_not_move_on(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4, "preset.ini"])
    caches.download(f"{REPO}:Q8_0", listing_of(REPOSITORY), commit=NEXT_COMMIT)
    assert offline.find(caches.hub, REPO, "Q4_K_M") == [content_of(Q4)]


def test_a_set_is_never_half_old_and_half_new(caches: Caches) -> None:
    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY))
    for name in SHARDS[:2]:
        caches.deliver(REPO, hub_file(name, 2), commit=NEXT_COMMIT)
    assert [caches.flat_path(REPO, name).read_bytes() for name in SHARDS] == [
        content_of(name) for name in SHARDS
    ]
    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY, 2), commit=NEXT_COMMIT)
    for name in SHARDS:
        flat = caches.flat_path(REPO, name)
        assert flat.read_bytes() == content_of(name, 2)
        assert flat.samefile(blob_of(caches, name, 2))
        assert flat.with_name(f"{flat.name}.etag").read_text() == f'"etag of {name}"'


def test_the_etag_of_older_bytes_goes_with_them(caches: Caches, make_caches: CachesFactory) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    caches.deliver(REPO, hub_file(Q4, 2), commit=NEXT_COMMIT)
    # The process that received the new ETag ended before it published.
    caches = make_caches()
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4], 2), commit=NEXT_COMMIT, contents={})
    assert caches.flat_path(REPO, Q4).read_bytes() == content_of(Q4, 2)
    assert not caches.flat_path(REPO, f"{Q4}.etag").exists()


# File systems without links.


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
        flat, blob = caches.flat_path(REPO, name), blob_of(caches, name)
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
    assert not any(blob_of(caches, name).is_symlink() for name in SHARDS)
    assert scan_cache_dir(caches.hub).warnings == []
    caches.cache.delete(REPO, None)
    assert caches.tree() == set()


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_what_others_fetched_stays_where_it_is(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4])
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]), contents={})
    assert caches.flat_path(REPO, Q4).readlink() == blob_of(caches, Q4)
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


def test_two_file_systems_hold_one_copy(
    caches: Caches, make_caches: CachesFactory, tmp_path: Path
) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to try")
    far = other / f"llamactl-test-{os.getpid()}"
    far.mkdir()
    caches.hub.symlink_to(far)
    try:
        caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
        assert blob_of(caches, Q4).is_symlink()
        assert caches.shown() == [f"{REPO}:Q4_K_M"]
        assert offline.find(caches.hub, REPO) == [content_of(Q4)]
        caches.cache.delete(REPO, None)
        assert list(far.iterdir()) == []
    finally:
        disk.remove_tree(other, far)


# Names that clash, and disks that refuse.


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


# A crash at any moment.


class PowerCut(BaseException):
    """The machine is off: nothing that follows happens, no clean-up either."""


class Machine:
    """Counts the changes on disk, and can be switched off before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[tuple[str, str]] = []
        self.off_at: int | None = None
        for name in ("replace", "symlink_to", "mkdir", "unlink"):
            monkeypatch.setattr(Path, name, self._watched(Path, name))
        for name in ("link", "unlink", "rmdir", "fsync"):
            monkeypatch.setattr(os, name, self._watched(os, name))

    def _watched(self, owner: object, name: str) -> Callable[..., object]:
        real = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> object:
            if self.off_at is not None and len(self.log) >= self.off_at:
                raise PowerCut
            changed = args[1 if name in {"replace", "link"} else 0]
            if isinstance(changed, int):
                changed = Path(f"/proc/self/fd/{changed}").readlink()
            # No machine goes down here, so nothing has to be waited for.
            result = None if name == "fsync" else real(*args, **kwargs)
            self.log.append((name, str(changed)))
            return result

        return watched


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_everything_is_on_the_disk_before_the_ref_says_so(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY))
    ref = ("replace", str(caches.repo_dir() / "refs" / "main"))
    assert machine.log.count(ref) == 1
    before = machine.log[: machine.log.index(ref)]
    for folder in (
        caches.flat,
        caches.repo_dir() / "blobs",
        caches.snapshot(),
        caches.snapshot() / "Q6_K",
        caches.snapshot().parent,
        caches.repo_dir(),
    ):
        changed = [
            n
            for n, (what, path) in enumerate(before)
            if what != "fsync" and str(Path(path).parent) == str(folder)
        ]
        synced = [n for n, event in enumerate(before) if event == ("fsync", str(folder))]
        kept = [n for n in changed if ".incomplete" not in before[n][1]]
        assert max(synced) > max(kept), folder
    after = machine.log[machine.log.index(ref) + 1 :]
    assert ("fsync", str(caches.repo_dir() / "refs")) in after


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("update", [False, True], ids=["first download", "update"])
def test_a_crash_at_any_change_leaves_the_old_model_or_the_new_one(
    tmp_path: Path, database: Database, update: bool
) -> None:
    database.read("PRAGMA synchronous=OFF")
    names = ["Model-Q6_K-00001-of-00002.gguf", "Model-Q6_K-00002-of-00002.gguf"]
    whole = [content_of(name, 2) for name in names]
    previous = [content_of(name) for name in names] if update else None
    listing = listing_of(names, 2)
    step = 0
    finished = False
    while not finished:
        folder = tmp_path / str(step)
        caches = _caches_in(folder, database)
        with pytest.MonkeyPatch.context() as patches:
            machine = Machine(patches)
            if update:
                caches.download(f"{REPO}:Q6_K", listing_of(names))
            machine.off_at = len(machine.log) + step
            try:
                caches.download(f"{REPO}:Q6_K", listing, commit=NEXT_COMMIT)
                finished = True
            except PowerCut:
                pass
            machine.off_at = None
            allowed = [whole] if finished else [previous, whole]
            assert offline.find(caches.hub, REPO, "Q6_K") in allowed
            caches = _caches_in(folder, database)
            caches.download(f"{REPO}:Q6_K", listing, commit=NEXT_COMMIT)
        assert offline.find(caches.hub, REPO, "Q6_K") == whole
        assert caches.shown() == [f"{REPO}:Q6_K"]
        for file in caches.cache.list()[0].files:
            assert file.path.read_bytes() == content_of(file.name, 2)
        for swept in (caches.flat, caches.hub, caches.repo_dir()):
            disk.sweep(swept, older_than=time.time() + 1)
        assert not [name for name in caches.tree() if "incomplete" in name]
        step += 1
    assert step > 30


def _caches_in(folder: Path, database: Database) -> Caches:
    """What a process finds when it starts."""
    flat, hub = folder / "flat", folder / "hub"
    return Caches(ModelCache(flat, hub, database, lambda _paths: []), flat, hub)


def test_what_a_killed_process_left_goes_at_once_and_a_living_ones_stays(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from llamactl.models import disk\n"
        "with disk.temporary_name(pathlib.Path(sys.argv[1])) as path:\n"
        "    path.touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with disk.temporary_name(tmp_path) as ours:
        ours.touch()
        disk.sweep(tmp_path, older_than=0)
        assert list(tmp_path.iterdir()) == [ours]
