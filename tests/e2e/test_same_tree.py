"""What a download leaves in the Hub's cache is what ``hf`` and llama.cpp leave there themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.hub_programs import Programs, tree
from tests.fakes.fake_hub import FakeHub, seeded_bytes

REPO = "acme/Vision-GGUF"
Q4 = "Vision-Q4_K_M.gguf"
MMPROJ = "mmproj-Vision-F16.gguf"
SHARDS = [f"UD-Q6_K_XL/Vision-UD-Q6_K_XL-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
CONTENT = {
    name: b"GGUF" + seeded_bytes(20_000 + number, number)
    for number, name in enumerate([Q4, "Vision-Q8_0.gguf", MMPROJ, *SHARDS])
} | {"README.md": b"# Vision\n"}
#: A tag, and the files that it means.
TAGS = [("Q4_K_M", [Q4, MMPROJ]), ("UD-Q6_K_XL", [*SHARDS, MMPROJ])]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.add_repo(REPO, CONTENT, lfs_threshold=1000)
        yield running


@pytest.fixture
def ours(hub: FakeHub, tmp_path: Path) -> Programs:
    return Programs(tmp_path / "ours", hub.endpoint)


@pytest.fixture
def theirs(hub: FakeHub, tmp_path: Path) -> Programs:
    return Programs(tmp_path / "theirs", hub.endpoint)


@pytest.mark.parametrize(("tag", "files"), TAGS)
def test_the_tree_is_the_one_that_hf_makes_of_the_same_files(
    ours: Programs, theirs: Programs, tag: str, files: list[str]
) -> None:
    theirs.hf("download", REPO, *files)
    ours.llamactl("download", f"{REPO}:{tag}")
    assert tree(ours.hub_dir) == tree(theirs.hub_dir)
    assert len([kind for kind, *_rest in tree(ours.hub_dir).values() if kind == "link"]) == len(
        files
    )


@pytest.mark.parametrize(("tag", "files"), TAGS)
def test_the_tree_is_the_one_that_llama_cpp_makes_of_the_same_tag(
    ours: Programs, theirs: Programs, tag: str, files: list[str]
) -> None:
    theirs.llama_cpp("-hf", f"{REPO}:{tag}")
    ours.llamactl("download", f"{REPO}:{tag}")
    assert tree(ours.hub_dir) == tree(theirs.hub_dir)


def test_the_tree_is_hfs_when_both_took_their_tags_one_after_the_other(
    ours: Programs, theirs: Programs
) -> None:
    for tag, files in TAGS:
        theirs.hf("download", REPO, *files)
        ours.llamactl("download", f"{REPO}:{tag}")
    assert tree(ours.hub_dir) == tree(theirs.hub_dir)


def test_the_tree_is_hfs_also_where_the_umask_lets_nobody_else_in(
    ours: Programs, theirs: Programs
) -> None:
    replace(theirs, umask=0o077).hf("download", REPO, Q4, MMPROJ)
    replace(ours, umask=0o077).llamactl("download", f"{REPO}:Q4_K_M")
    assert tree(ours.hub_dir) == tree(theirs.hub_dir)


def test_a_preset_lies_in_the_flat_cache_alone(
    ours: Programs, theirs: Programs, hub: FakeHub
) -> None:
    hub.add_repo("acme/Preset-GGUF", {Q4: CONTENT[Q4], "preset.ini": b"[*]\n"}, lfs_threshold=1000)
    theirs.hf("download", "acme/Preset-GGUF", Q4)
    ours.llamactl("download", "acme/Preset-GGUF:Q4_K_M")
    assert tree(ours.hub_dir) == tree(theirs.hub_dir)
    assert (ours.flat / "acme_Preset-GGUF_preset.ini").read_bytes() == b"[*]\n"


@pytest.mark.parametrize(("tag", "files"), TAGS)
def test_hf_and_llama_cpp_have_nothing_left_to_fetch(
    ours: Programs, hub: FakeHub, tag: str, files: list[str]
) -> None:
    ours.llamactl("download", f"{REPO}:{tag}")
    before = tree(ours.hub_dir)
    fetched = len(hub.requests("cdn"))
    ours.hf("download", REPO, *files)
    ours.llama_cpp("-hf", f"{REPO}:{tag}")
    assert len(hub.requests("cdn")) == fetched
    assert tree(ours.hub_dir) == before
    printed = ours.llama_cpp("-hf", f"{REPO}:{tag}", "--offline").stdout.splitlines()
    snapshot = next((ours.repo_dir(REPO) / "snapshots").iterdir())
    assert str(snapshot / files[0]) in printed
