"""From bytes to a model: one copy under both names, and the ref last."""

from __future__ import annotations

import json
import os
import stat

import pytest
from huggingface_hub import scan_cache_dir

from llamactl.errors import (
    ChecksumMismatch,
)
from llamactl.models.hubfile import Manifest
from llamactl.models.reference import ModelRef
from llamactl.models.selection import select
from tests.models import offline
from tests.models.conftest import (
    COMMIT,
    MMPROJ,
    NEXT_COMMIT,
    Q4,
    Q8,
    REPO,
    REPOSITORY,
    SHARDS,
    Caches,
    CachesFactory,
    content_of,
    hub_file,
    listing_of,
    manifest_of,
)

# Names.


def test_a_file_has_both_names_and_one_copy_of_its_bytes(caches: Caches) -> None:
    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY))
    for name in (*SHARDS, MMPROJ):
        flat = caches.flat_path(REPO, name)
        assert flat.samefile(caches.blob(name))
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
    assert not caches.blob("preset.ini").exists()


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
    assert caches.flat_path(REPO, Q4).samefile(caches.blob(Q4))


def test_what_older_llama_cpp_fetched_gets_its_blob_without_a_byte(caches: Caches) -> None:
    caches.older_llama_cpp(REPO, "Q4_K_M", [Q4])
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]), contents={})
    assert caches.flat_path(REPO, Q4).samefile(caches.blob(Q4))
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
    blob = caches.blob(Q4)
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
    os.utime(caches.blob(Q4), (1, 1))
    assert caches.cache.has(REPO, hub_file(Q4), on_bytes=read.append) is not None
    assert sum(read) == len(content_of(Q4))


def test_a_distrusted_file_is_hashed_again(caches: Caches) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    read: list[int] = []
    names = [caches.flat_path(REPO, Q4), caches.blob(Q4)]
    caches.cache.distrust(names)
    assert caches.cache.has(REPO, hub_file(Q4), on_bytes=read.append) is not None
    assert sum(read) == len(content_of(Q4))


def test_a_damaged_file_is_replaced_in_both_caches(caches: Caches) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    caches.flat_path(REPO, Q4).write_bytes(b"x" * len(content_of(Q4)))
    assert caches.cache.has(REPO, hub_file(Q4)) is None
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    assert caches.flat_path(REPO, Q4).read_bytes() == content_of(Q4)
    assert caches.flat_path(REPO, Q4).samefile(caches.blob(Q4))


def test_a_file_that_vanished_before_publication_stops_it(caches: Caches) -> None:
    listing = listing_of([Q4])
    selection = select(ModelRef(REPO), listing, None)
    caches.deliver(REPO, hub_file(Q4))
    caches.flat_path(REPO, Q4).unlink()
    caches.blob(Q4).unlink()
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
    assert not caches.blob(Q4).exists()
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
        assert flat.samefile(caches.blob(name, 2))
        assert flat.with_name(f"{flat.name}.etag").read_text() == f'"etag of {name}"'


def test_the_etag_of_older_bytes_goes_with_them(caches: Caches, make_caches: CachesFactory) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    caches.deliver(REPO, hub_file(Q4, 2), commit=NEXT_COMMIT)
    # The process that received the new ETag ended before it published.
    caches = make_caches()
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4], 2), commit=NEXT_COMMIT, contents={})
    assert caches.flat_path(REPO, Q4).read_bytes() == content_of(Q4, 2)
    assert not caches.flat_path(REPO, f"{Q4}.etag").exists()
