"""Deleting removes what was asked in both caches, and nothing that anybody else needs."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from llamactl.errors import ModelInUse, ModelNotFound
from llamactl.models import disk
from llamactl.models.reference import ModelRef
from tests.models import offline
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

REPOSITORY = [Q4, Q8, MMPROJ, *SHARDS, "preset.ini"]


def test_deleting_the_only_model_leaves_nothing(caches: Caches) -> None:
    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY), manifest=manifest_of(SHARDS[0]))
    caches.cache.delete(REPO, "q6_k")
    assert caches.cache.list() == []
    assert caches.tree() == set()
    assert not caches.repo_dir().exists()


def test_what_another_tag_needs_stays(caches: Caches) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of(REPOSITORY))
    before = caches.tree()
    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY))
    caches.cache.delete(REPO, "Q6_K")
    assert caches.tree() == before
    assert caches.shown() == [f"{REPO}:Q4_K_M"]
    assert offline.find(caches.hub, REPO, "Q4_K_M") == [content_of(Q4)]
    assert scan_cache_dir(caches.hub).warnings == []


def test_deleting_one_of_two_names_of_a_model_keeps_its_files(caches: Caches) -> None:
    caches.download(REPO, listing_of(REPOSITORY))
    caches.download(f"{REPO}:Q4_K_M", listing_of(REPOSITORY))
    caches.users.append("an instance that uses the file")
    caches.cache.delete(REPO, "latest")
    assert caches.asked == []
    assert caches.shown() == [f"{REPO}:Q4_K_M"]
    caches.users.clear()
    caches.cache.delete(REPO, "Q4_K_M")
    assert caches.tree() == set()


def test_without_a_tag_every_tag_goes_and_nothing_else(caches: Caches) -> None:
    for tag in ("latest", "Q8_0", "Q6_K"):
        caches.download(f"{REPO}:{tag}", listing_of(REPOSITORY))
    caches.download("org/Other-GGUF", listing_of([Q4]))
    caches.hf_download(REPO, ["README.md", "imatrix.gguf"])
    caches.cache.delete(REPO, None)
    assert caches.shown() == ["org/Other-GGUF:latest"]
    mine = {name for name in caches.tree() if "Other" not in name}
    repo = "hub/models--org--Model-GGUF"
    assert mine == {
        f"{repo}/blobs/{hub_file('README.md').oid}",
        f"{repo}/blobs/{hub_file('imatrix.gguf').oid}",
        f"{repo}/snapshots/{COMMIT}/README.md",
        f"{repo}/snapshots/{COMMIT}/imatrix.gguf",
        f"{repo}/refs/main",
    }
    assert scan_cache_dir(caches.hub).warnings == []


def test_all_versions_of_a_tag_go_together(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4])
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4, Q8], 2), commit=NEXT_COMMIT)
    caches.hf_download(REPO, [Q4], commit="d" * 40, version=3)
    assert len(list((caches.repo_dir() / "blobs").iterdir())) == 3
    caches.cache.delete(REPO, "Q4_K_M")
    assert caches.tree() == set()


def test_a_blob_that_a_file_of_another_name_has_stays(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4])
    copy = caches.snapshot() / "copy-Q8_0.gguf"
    copy.symlink_to(f"../../blobs/{hub_file(Q4).oid}")
    caches.cache.delete(REPO, "Q4_K_M")
    assert caches.shown() == [f"{REPO}:Q8_0"]
    assert copy.read_bytes() == content_of(Q4)


@pytest.mark.parametrize("tag", ["latest", None])
def test_what_older_llama_cpp_fetched_is_deleted_with_all_that_belongs_to_it(
    caches: Caches, tag: str | None
) -> None:
    caches.older_llama_cpp(REPO, "latest", [Q4], mmproj=MMPROJ)
    flat = caches.flat_path(REPO, Q4)
    flat.with_name(f"{flat.name}.json").write_text("{}")
    caches.older_llama_cpp("org/Other-GGUF", "latest", [Q4])
    caches.cache.delete(REPO, tag)
    assert all("Other" in name for name in caches.tree())
    assert caches.shown() == ["org/Other-GGUF:latest"]


def test_all_spellings_of_a_tag_go_together(caches: Caches) -> None:
    for tag in ("q4_k_m", "Q4_K_M", Q4):
        caches.older_llama_cpp(REPO, tag, [Q4])
    caches.cache.delete(REPO, "Q4_k_M")
    assert caches.tree() == set()


def test_what_hf_fetched_is_deleted_by_tag(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4, *SHARDS])
    caches.hf_download(REPO, [Q4], commit=NEXT_COMMIT, ref="v2")
    caches.cache.delete(REPO, "Q4_K_M")
    assert caches.shown() == [f"{REPO}:Q6_K"]
    assert not caches.snapshot(commit=NEXT_COMMIT).exists()
    assert not (caches.repo_dir() / "refs" / "v2").exists()
    assert scan_cache_dir(caches.hub).warnings == []
    (caches.repo_dir() / "trees").mkdir()
    (caches.repo_dir() / "trees" / f"{COMMIT}.json").write_text("[]")
    caches.cache.delete(REPO, "Q6_K")
    assert caches.tree() == set()


def test_what_another_program_is_still_fetching_stays(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4])
    blob = caches.repo_dir() / "blobs" / hub_file(Q8).oid
    partials = [Path(f"{blob}.downloadInProgress"), Path(f"{blob}.0123abcd.incomplete")]
    for partial in partials:
        partial.write_bytes(b"GG")
    caches.cache.delete(REPO, None)
    assert [partial.read_bytes() for partial in partials] == [b"GG", b"GG"]
    # It made these at its start, and its end counts on them.
    assert caches.snapshot().is_dir()
    assert (caches.repo_dir() / "refs" / "main").read_text() == COMMIT
    for partial in partials:
        partial.unlink()
    caches.hf_download(REPO, [Q8])
    caches.cache.delete(REPO, None)
    assert caches.tree() == set()


def test_a_flat_file_that_may_be_another_repositorys_stays(caches: Caches) -> None:
    # Older llama.cpp asked nobody whether two repositories would share a name.
    caches.older_llama_cpp("a/b_c", "latest", [Q4])
    caches.older_llama_cpp("a_b/c", "latest", [Q4])
    assert caches.shown() == ["a/b_c:latest", "a_b/c:latest"]
    caches.cache.delete("a/b_c", None)
    assert caches.shown() == ["a_b/c:latest"]
    assert caches.cache.gguf_path(ModelRef("a_b/c")).read_bytes() == content_of(Q4)
    caches.cache.delete("a_b/c", None)
    assert caches.tree() == set()


def test_hard_links_of_others_keep_their_bytes(caches: Caches, tmp_path: Path) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of([Q4]))
    caches.hf_download("b/Copy-GGUF", [Q4])
    blob = caches.repo_dir() / "blobs" / hub_file(Q4).oid
    # Somebody saved space, and somebody else keeps a copy of his own.
    copy = caches.repo_dir("b/Copy-GGUF") / "blobs" / blob.name
    copy.unlink()
    copy.hardlink_to(blob)
    (tmp_path / "mine.gguf").hardlink_to(blob)
    caches.cache.delete(REPO, None)
    assert caches.shown() == ["b/Copy-GGUF:Q4_K_M"]
    assert offline.find(caches.hub, "b/Copy-GGUF", "Q4_K_M") == [content_of(Q4)]
    assert (tmp_path / "mine.gguf").read_bytes() == content_of(Q4)


def test_a_tag_that_two_threads_delete_is_deleted_once(caches: Caches) -> None:
    for _ in range(5):
        caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY))
        caches.download(f"{REPO}:Q4_K_M", listing_of(REPOSITORY))
        with ThreadPoolExecutor(4) as pool:
            orders = ["Q6_K", "Q4_K_M", "q6_k", "q4_k_m"]
            deletions = [pool.submit(caches.cache.delete, REPO, tag) for tag in orders]
            lists = [pool.submit(caches.shown) for _ in range(4)]
            failures = [done.exception() for done in deletions]
            assert all(done.exception() is None for done in lists)
        assert sorted(type(failure).__name__ for failure in failures) == [
            "ModelNotFound",
            "ModelNotFound",
            "NoneType",
            "NoneType",
        ]
        assert caches.tree() == set()


def test_the_store_that_repositories_share_is_left_to_hf(caches: Caches) -> None:
    caches.hf_download(REPO, [Q4])
    blob = caches.repo_dir() / "blobs" / hub_file(Q4).oid
    shared = caches.hub / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    caches.cache.delete(REPO, None)
    assert caches.tree() == {f"hub/blobs/ab/{'ab' * 32}"}


def test_a_model_that_is_used_is_not_deleted(caches: Caches) -> None:
    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY))
    before = caches.tree()
    caches.users.extend(["chat", "code"])
    with pytest.raises(ModelInUse, match="chat, code"):
        caches.cache.delete(REPO, "Q6_K")
    assert caches.tree() == before
    # Whatever name an instance uses, it is asked for.
    for shard in SHARDS:
        assert caches.flat_path(REPO, shard) in caches.asked
        assert caches.snapshot() / shard in caches.asked
        assert caches.repo_dir() / "blobs" / hub_file(shard).oid in caches.asked


@pytest.mark.parametrize("tag", ["Q8_0", "Q4_K", "latest", "../../x", "", "*", "Model"])
def test_a_tag_that_is_not_listed_deletes_nothing_and_names_those_that_are(
    caches: Caches, tag: str
) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of(REPOSITORY))
    before = caches.tree()
    with pytest.raises(ModelNotFound, match="Q4_K_M"):
        caches.cache.delete(REPO, tag)
    assert caches.tree() == before


@pytest.mark.parametrize(
    "repo_id", ["org/none", "", "..", "../..", "org/Model-GGUF/..", "org", "/etc", "org/*", "a\0b"]
)
def test_a_repository_that_is_not_cached_deletes_nothing(caches: Caches, repo_id: str) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of(REPOSITORY))
    before = caches.tree()
    for tag in (None, "Q4_K_M", "latest"):
        with pytest.raises(ModelNotFound):
            caches.cache.delete(repo_id, tag)
    assert caches.tree() == before


def test_planted_links_lead_nowhere(caches: Caches, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for place in ("snapshots", "blobs", "refs", "snapshot", "folder", "link", "flat"):
        (outside / place).mkdir(parents=True)
        (outside / place / "precious").write_text(place)
    blob = hub_file(SHARDS[0]).oid
    (outside / "blobs" / blob).write_bytes(content_of(SHARDS[0]))
    (outside / "folder" / Path(SHARDS[1]).name).write_text("precious")
    (outside / "refs" / "main").write_text(COMMIT)
    precious = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}

    caches.download(f"{REPO}:Q6_K", listing_of(REPOSITORY))
    repo_dir, snapshot = caches.repo_dir(), caches.snapshot()
    disk.remove_tree(caches.hub, repo_dir / "refs")
    (repo_dir / "refs").symlink_to(outside / "refs")
    (repo_dir / "trees").symlink_to(outside / "snapshots")
    disk.remove_tree(caches.hub, repo_dir / "blobs")
    (repo_dir / "blobs").symlink_to(outside / "blobs")
    disk.remove_tree(caches.hub, snapshot / "Q6_K")
    (snapshot / "Q6_K").symlink_to(outside / "folder")
    (snapshot / "x-Q2_K.gguf").symlink_to(outside / "link" / "precious")
    (snapshot.parent / ("c" * 40)).symlink_to(outside / "snapshot")
    flat = caches.flat_path(REPO, SHARDS[2])
    flat.unlink()
    flat.symlink_to(outside / "flat" / "precious")

    # Nothing listed is fine as well, as long as nothing outside is touched.
    with contextlib.suppress(ModelNotFound):
        caches.cache.delete(REPO, None)
    assert {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()} == precious


def test_bytes_of_a_cancelled_download_are_discarded(caches: Caches) -> None:
    for name in (*SHARDS[:2], "preset.ini"):
        caches.deliver(REPO, hub_file(name))
    caches.cache.discard(REPO, listing_of([*SHARDS, MMPROJ, "preset.ini"]))
    assert {name for name in caches.tree() if "preset" not in name} == set()
    assert not caches.repo_dir().exists()


def test_discarding_leaves_what_a_model_has(caches: Caches) -> None:
    caches.download(f"{REPO}:Q4_K_M", listing_of(REPOSITORY))
    before = caches.tree()
    caches.deliver(REPO, hub_file(SHARDS[0]))
    caches.deliver(REPO, hub_file(Q4, 2), commit=NEXT_COMMIT)
    listing = [*listing_of([*SHARDS, MMPROJ]), hub_file(Q4), hub_file(Q4, 2)]
    caches.cache.discard(REPO, listing)
    assert caches.tree() == before
    assert caches.flat_path(REPO, Q4).read_bytes() == content_of(Q4)


def test_discarding_leaves_a_flat_file_that_somebody_else_put_there(caches: Caches) -> None:
    caches.flat.mkdir()
    flat = caches.flat_path(REPO, Q4)
    flat.write_bytes(b"another version")
    caches.deliver(REPO, hub_file(Q4))
    caches.cache.discard(REPO, [hub_file(Q4)])
    assert flat.read_bytes() == b"another version"
    assert caches.tree() == {f"flat/{flat.name}"}


@pytest.mark.parametrize("fallback", [False, True], ids=["by descriptor", "by path"])
def test_no_removal_goes_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fallback: bool
) -> None:
    monkeypatch.setattr(disk, "_HAS_DIR_FD", not fallback)
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "real").mkdir(parents=True)
    (outside / "empty").mkdir(parents=True)
    (outside / "file").write_text("precious")
    (root / "real" / "file").symlink_to(outside / "file")
    (root / "planted").symlink_to(outside)
    assert not disk.remove_file(root, root / "planted" / "file")
    assert not disk.remove_empty_dir(root, root / "planted" / "empty")
    assert not disk.remove_empty_dir(root, root / "planted")
    assert not disk.remove_file(root, root / "none" / "file")
    disk.remove_tree(root, root / "planted")
    assert disk.remove_file(root, root / "real" / "file")
    assert not disk.remove_file(root, root / "real" / "file")
    assert disk.remove_empty_dir(root, root / "real")
    assert (outside / "file").read_text() == "precious"
    assert (outside / "empty").is_dir()
