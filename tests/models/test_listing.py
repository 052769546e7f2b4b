"""The list of cached models: what llamactl, older and today's llama.cpp and hf put there."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from llamactl.database import Database
from llamactl.errors import ModelNotFound
from llamactl.models.cache import ModelCache
from llamactl.models.reference import ModelRef
from llamactl.models.snapshots import cached_model_json
from tests.models.conftest import (
    COMMIT,
    MMPROJ,
    NEXT_COMMIT,
    Q4,
    Q8,
    REPO,
    SHARDS,
    Caches,
    content_of,
    hub_file,
    listing_of,
    manifest_of,
)


def test_there_is_nothing_before_the_first_download(caches: Caches) -> None:
    assert caches.cache.list() == []
    assert caches.cache.find(ModelRef(REPO)) is None
    assert not caches.hub.exists()


def test_a_download_is_listed_with_all_that_the_interface_promises(caches: Caches) -> None:
    caches.download(f"{REPO}:q4_k_m", listing_of([Q4, MMPROJ, "preset.ini", Q8]))
    [model] = [cached_model_json(model) for model in caches.cache.list()]
    size = len(content_of(Q4)) + len(content_of(MMPROJ)) + len(content_of("preset.ini"))
    flat = caches.flat / f"org_Model-GGUF_{Q4}"
    assert model["repo"] == REPO
    assert model["tag"] == "Q4_K_M"
    assert model["total_size"] == model["size_bytes"] == size
    assert model["file_count"] == 3
    assert model["complete"] is True
    files = model["files"]
    assert isinstance(files, list)
    assert files[0] == {
        "name": Q4,
        "path": str(flat),
        "size": len(content_of(Q4)),
        "size_bytes": len(content_of(Q4)),
        "modified": int(flat.stat().st_mtime),
        "type": "gguf",
        "sha256": sha256(content_of(Q4)).hexdigest(),
    }
    assert [(file["name"], file["type"]) for file in files] == [
        (Q4, "gguf"),
        (MMPROJ, "mmproj"),
        ("preset.ini", "preset"),
    ]
    assert files[2]["sha256"] is None


def test_latest_is_listed_as_latest_and_shares_its_file_with_the_quant(caches: Caches) -> None:
    listing = listing_of([Q4, Q8])
    caches.download(REPO, listing)
    assert caches.shown() == [f"{REPO}:latest"]
    caches.download(f"{REPO}:Q4_K_M", listing)
    assert caches.shown() == [f"{REPO}:latest", f"{REPO}:Q4_K_M"]
    latest, quant = caches.cache.list()
    assert latest.files == quant.files


@pytest.mark.parametrize("spelling", ["q4_k_m", "Q4_K_M", Q4, Q4.upper(), "model-q4_k_m"])
def test_every_spelling_of_a_tag_is_one_entry(caches: Caches, spelling: str) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4, Q8]))
    caches.download(f"{REPO}:{spelling}", listing_of([Q4, Q8]))
    assert caches.shown() == [f"{REPO}:Q4_K_M"]
    found = caches.cache.find(ModelRef(REPO, spelling))
    assert found is not None
    assert found.ref == ModelRef(REPO, "Q4_K_M")


def test_what_older_llama_cpp_fetched_is_listed(caches: Caches) -> None:
    caches.older_llama_cpp(REPO, "q4_k_m", [Q4], mmproj=MMPROJ)
    [model] = caches.cache.list()
    assert model.ref == ModelRef(REPO, "Q4_K_M")
    assert [file.path for file in model.files] == [
        caches.flat_path(REPO, Q4),
        caches.flat_path(REPO, MMPROJ),
    ]
    assert model.complete
    assert model.gguf.sha256 is None  # nobody hashed it


def test_what_older_llama_cpp_fetched_in_two_spellings_is_one_entry(caches: Caches) -> None:
    for tag in ("q4_k_m", "Q4_K_M", Q4, "latest"):
        caches.older_llama_cpp(REPO, tag, [Q4])
    assert caches.shown() == [f"{REPO}:latest", f"{REPO}:Q4_K_M"]


def test_a_digest_is_shown_once_the_file_was_hashed(caches: Caches) -> None:
    caches.older_llama_cpp(REPO, "Q4_K_M", [Q4])
    assert caches.cache.has(REPO, hub_file(Q4)) == caches.flat_path(REPO, Q4)
    assert caches.cache.list()[0].gguf.sha256 == hub_file(Q4).oid


@pytest.mark.parametrize("ref", ["main", "v2", None])
def test_what_hf_and_todays_llama_cpp_fetched_is_listed(caches: Caches, ref: str | None) -> None:
    caches.hf_download(REPO, [Q4, *SHARDS, MMPROJ, "README.md", "preset.ini"], ref=ref)
    models = caches.cache.list()
    assert [str(model.ref) for model in models] == [f"{REPO}:Q4_K_M", f"{REPO}:Q6_K"]
    assert all(model.complete for model in models)
    assert [file.name for file in models[1].files] == [*SHARDS, MMPROJ]
    assert models[0].gguf.path == caches.snapshot() / Q4
    assert models[0].gguf.sha256 == hub_file(Q4).oid


def test_a_model_that_both_caches_hold_is_listed_once(caches: Caches) -> None:
    caches.older_llama_cpp(REPO, "Q4_K_M", [Q4])
    caches.hf_download(REPO, [Q4])
    [model] = caches.cache.list()
    # Two copies: the one of main is what llama-server -hf runs, and its digest is known.
    assert model.gguf.path == caches.snapshot() / Q4
    assert model.gguf.sha256 == hub_file(Q4).oid


def test_the_snapshot_of_main_counts_before_older_ones(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4, Q8])
    caches.hf_download(REPO, [Q4], commit=NEXT_COMMIT, version=2)
    models = {model.ref.tag: model for model in caches.cache.list()}
    assert models["Q4_K_M"].gguf.sha256 == hub_file(Q4, 2).oid
    assert models["Q8_0"].gguf.path == caches.snapshot() / Q8


def test_a_file_in_a_snapshot_without_a_blob_is_listed(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4])
    link = caches.snapshot() / Q4
    link.resolve().replace(link)
    [model] = caches.cache.list()
    assert model.gguf.path == link
    assert model.gguf.sha256 is None


def test_bytes_in_the_store_that_repositories_share_are_listed(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4])
    blob = caches.repo_dir() / "blobs" / hub_file(Q4).oid
    shared = caches.hub / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    assert caches.shown() == [f"{REPO}:Q4_K_M"]
    assert caches.cache.has(REPO, hub_file(Q4)) == blob


def test_both_caches_may_be_one_directory(tmp_path: Path, database: Database) -> None:
    root = tmp_path / "cache"
    caches = Caches(ModelCache(root, root, database, lambda _paths: []), root, root)
    caches.older_llama_cpp("a/Old-GGUF", "latest", ["Old-Q8_0.gguf"])
    caches.hf_download("b/New-GGUF", ["New-Q8_0.gguf"])
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    assert caches.shown() == ["a/Old-GGUF:latest", "b/New-GGUF:Q8_0", f"{REPO}:Q4_K_M"]
    for repo_id in ("a/Old-GGUF", "b/New-GGUF", REPO):
        caches.cache.delete(repo_id, None)
    assert list(root.iterdir()) == []


# Not whole.


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_set_without_one_shard_is_not_complete(caches: Caches, missing: int) -> None:
    present = [name for name in SHARDS if name != SHARDS[missing]]
    caches.hf_download(REPO, present)
    assert caches.shown() == [f"{REPO}:Q6_K?"]
    with pytest.raises(ModelNotFound, match="only in part"):
        caches.cache.gguf_path(ModelRef(REPO, "Q6_K"))


def test_a_set_that_older_llama_cpp_is_still_fetching_is_not_complete(caches: Caches) -> None:
    caches.older_llama_cpp(REPO, "Q6_K", SHARDS)
    last = caches.flat_path(REPO, SHARDS[2])
    last.rename(f"{last}.downloadInProgress")
    assert caches.shown() == [f"{REPO}:Q6_K?"]


def test_a_model_whose_projector_is_still_fetched_is_not_complete(caches: Caches) -> None:
    caches.older_llama_cpp(REPO, "Q4_K_M", [Q4], mmproj=MMPROJ)
    mmproj = caches.flat_path(REPO, MMPROJ)
    mmproj.rename(f"{mmproj}.downloadInProgress")
    assert caches.shown() == [f"{REPO}:Q4_K_M?"]


def test_partials_and_empty_promises_are_no_models(caches: Caches) -> None:
    caches.older_llama_cpp(REPO, "Q4_K_M", [Q4])
    path = caches.flat_path(REPO, Q4)
    path.rename(f"{path}.downloadInProgress")
    caches.hf_download("b/New-GGUF", ["New-Q8_0.gguf"])
    blob = caches.repo_dir("b/New-GGUF") / "blobs" / hub_file("New-Q8_0.gguf").oid
    blob.rename(f"{blob}.1234abcd.incomplete")
    assert caches.cache.list() == []


def test_published_files_of_an_unfinished_download_are_no_model(caches: Caches) -> None:
    for shard in SHARDS:
        caches.deliver(REPO, hub_file(shard))
    assert caches.cache.list() == []


# What is none of ours.


def test_what_is_no_model_is_passed_over(caches: Caches) -> None:
    caches.hf_download("org/safetensors", ["model.safetensors", "config.json"])
    caches.hf_download("org/helpers", [MMPROJ, "imatrix.gguf", "mtp-Model-Q8_0.gguf"])
    (caches.hub / "datasets--org--data" / "snapshots").mkdir(parents=True)
    (caches.hub / "models--broken").mkdir()
    (caches.hub / "models--a--b--c" / "snapshots" / COMMIT).mkdir(parents=True)
    (caches.hub / "models--org--short" / "snapshots" / "abc").mkdir(parents=True)
    (caches.hub / "version.txt").write_text("1")
    caches.flat.mkdir()
    for name, content in [
        ("manifest=org=Model-GGUF=Q4_K_M.json", b"<html>"),
        ("manifest=org=Model-GGUF=Q8_0.json", b'{"ggufFile":{"rfilename":"../../x"}}'),
        ("manifest=..=..=x.json", manifest_of(Q4)),
        ("manifest=org=Model-GGUF.json", manifest_of(Q4)),
        ("manifest=org=Gone-GGUF=latest.json", manifest_of("gone.gguf")),
        ("stories.gguf", b"GGUF"),
    ]:
        (caches.flat / name).write_bytes(content)
    assert caches.cache.list() == []


def test_no_link_is_followed_out_of_the_cache(caches: Caches, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    caches.hf_download(REPO, [Q4, Q8])
    caches.repo_dir().rename(outside)
    caches.repo_dir().symlink_to(outside)
    caches.flat.mkdir()
    # That a manifest speaks of the repository leads nobody there either.
    (caches.flat / "manifest=org=Model-GGUF=Q8_0.json").write_bytes(manifest_of(Q8))

    caches.hf_download("b/Snapshots-GGUF", [Q4])
    snapshots = caches.repo_dir("b/Snapshots-GGUF") / "snapshots"
    snapshots.rename(tmp_path / "snapshots")
    snapshots.symlink_to(tmp_path / "snapshots")

    caches.hf_download("c/File-GGUF", [Q4])
    link = caches.snapshot("c/File-GGUF") / Q4
    link.unlink()
    link.symlink_to(outside / "snapshots" / COMMIT / Q4)

    caches.hf_download("d/Blob-GGUF", [Q4])
    blob = caches.repo_dir("d/Blob-GGUF") / "blobs" / hub_file(Q4).oid
    blob.unlink()
    blob.symlink_to(outside / "blobs" / hub_file(Q4).oid)

    caches.older_llama_cpp("e/Flat-GGUF", "latest", [Q4])
    flat = caches.flat_path("e/Flat-GGUF", Q4)
    flat.rename(tmp_path / "flat.gguf")
    flat.symlink_to(tmp_path / "flat.gguf")

    assert caches.cache.list() == []
    assert caches.cache.has("d/Blob-GGUF", hub_file(Q4)) is None


# By reference.


def test_a_reference_finds_what_a_download_of_it_would_choose(caches: Caches) -> None:
    caches.hf_download(REPO, [Q8, Q4, "Model-UD-Q5_K_XL.gguf", *SHARDS, MMPROJ])
    for tag, name in [
        ("latest", Q4),
        ("q8_0", Q8),
        ("Q5_K_XL", "Model-UD-Q5_K_XL.gguf"),
        ("ud-q5_k_xl", "Model-UD-Q5_K_XL.gguf"),
        ("Model-Q8_0.gguf", Q8),
        (SHARDS[1], SHARDS[0]),
    ]:
        assert caches.cache.gguf_path(ModelRef(REPO, tag)) == caches.snapshot() / name
        assert caches.cache.mmproj_path(ModelRef(REPO, tag)) == caches.snapshot() / MMPROJ


def test_a_reference_that_is_not_cached_names_what_is(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4, Q8])
    with pytest.raises(ModelNotFound, match="Q4_K_M, Q8_0"):
        caches.cache.gguf_path(ModelRef(REPO, "Q2_K"))
    with pytest.raises(ModelNotFound, match="Download it first"):
        caches.cache.mmproj_path(ModelRef("org/other"))
