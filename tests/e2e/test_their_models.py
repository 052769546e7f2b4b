"""What other programs fetched is listed, verified, mended and deleted as if it were ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import requests

from tests.e2e.hub_programs import Programs, tree
from tests.e2e.processes import wait_for
from tests.fakes.fake_hub import FakeHub, seeded_bytes

REPO = "acme/Vision-GGUF"
Q4 = "Vision-Q4_K_M.gguf"
MMPROJ = "mmproj-Vision-F16.gguf"
SHARDS = [f"Q6_K/Vision-Q6_K-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
CONTENT = {
    name: b"GGUF" + seeded_bytes(20_000 + number, number)
    for number, name in enumerate([Q4, MMPROJ, *SHARDS])
}
SIX = f"{REPO}:Q6_K"
FOUR = f"{REPO}:Q4_K_M"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.add_repo(REPO, {**CONTENT, "README.md": b"# Vision\n"}, lfs_threshold=1000)
        yield running


@pytest.fixture
def programs(hub: FakeHub, tmp_path: Path) -> Programs:
    return Programs(tmp_path / "both", hub.endpoint)


def by_hf(programs: Programs) -> None:
    programs.hf("download", REPO, *CONTENT, "README.md")


def by_llama_cpp(programs: Programs) -> None:
    for ref in (FOUR, SIX):
        programs.llama_cpp("-hf", ref)


def by_older_llama_cpp(programs: Programs) -> None:
    """As it did until 2026: the manifest first, then each file with the ETag of its last hop."""
    programs.flat.mkdir(parents=True)
    prefix = REPO.replace("/", "_")
    for tag, names in (("Q4_K_M", [Q4, MMPROJ]), ("q6_k", [*SHARDS, MMPROJ])):
        manifest = requests.get(
            f"{programs.endpoint}/v2/{REPO}/manifests/{tag}",
            headers={"User-Agent": "llama-cpp", "Accept": "application/json"},
            timeout=60,
        )
        assert manifest.json()["ggufFile"]["rfilename"] == names[0]
        org, name = REPO.split("/")
        (programs.flat / f"manifest={org}={name}={tag}.json").write_bytes(manifest.content)
        for filename in names:
            url = f"{programs.endpoint}/{REPO}/resolve/main/{filename}"
            answer = requests.get(url, timeout=60)
            path = programs.flat / f"{prefix}_{filename.replace('/', '_')}"
            path.write_bytes(answer.content)
            path.with_name(f"{path.name}.etag").write_text(answer.headers["ETag"])


EVERY_PROGRAM = pytest.mark.parametrize("fetch", [by_hf, by_llama_cpp, by_older_llama_cpp])
Fetch = Callable[[Programs], None]


@EVERY_PROGRAM
def test_each_model_is_listed_once_with_all_its_files(programs: Programs, fetch: Fetch) -> None:
    fetch(programs)
    if fetch is by_older_llama_cpp:
        # It kept no digest of what it fetched; a check against the hub finds them.
        programs.llamactl("models", "verify", REPO)
    listed = programs.models()
    assert set(listed) == {FOUR, SIX}
    for ref, names in ((FOUR, [Q4, MMPROJ]), (SIX, [*SHARDS, MMPROJ])):
        model = listed[ref]
        assert model["complete"] is True
        assert model["total_size"] == sum(len(CONTENT[name]) for name in names)
        assert [file["name"] for file in model["files"]] == names
        assert [file["type"] for file in model["files"]] == ["gguf"] * (len(names) - 1) + ["mmproj"]
        assert [file["sha256"] for file in model["files"]] == [
            sha256(CONTENT[name]).hexdigest() for name in names
        ]
        assert [Path(file["path"]).read_bytes() for file in model["files"]] == [
            CONTENT[name] for name in names
        ]


@EVERY_PROGRAM
def test_one_flipped_bit_is_found_and_that_file_alone_is_fetched_again(
    programs: Programs, hub: FakeHub, fetch: Fetch
) -> None:
    fetch(programs)
    programs.llamactl("models", "verify")
    damaged = Path(programs.models()[SIX]["files"][1]["path"])
    content = bytearray(damaged.read_bytes())
    content[11_111] ^= 0x10
    damaged.write_bytes(content)
    found = programs.llamactl("models", "verify", REPO, check=False)
    assert found.returncode == 1
    assert SHARDS[1] in found.stderr
    assert SHARDS[0] not in found.stderr
    before = len(hub.requests("cdn"))
    programs.llamactl("models", "verify", REPO, "--repair")
    fetched = {request.target.partition("?")[0] for request in hub.requests("cdn")[before:]}
    assert len(fetched) == 1
    assert Path(programs.models()[SIX]["files"][1]["path"]).read_bytes() == CONTENT[SHARDS[1]]
    programs.llamactl("models", "verify", REPO)


@EVERY_PROGRAM
def test_a_deleted_model_leaves_exactly_what_is_not_its_own(
    programs: Programs, fetch: Fetch, tmp_path: Path
) -> None:
    fetch(programs)
    whole = tree(programs.folder)
    programs.llamactl("models", "rm", SIX)
    after = tree(programs.folder)
    gone = {name for name in whole if name not in after and "data/" not in name}
    oids = {sha256(CONTENT[name]).hexdigest() for name in SHARDS}
    for name in gone:
        assert "Q6_K" in name or "q6_k" in name or Path(name).name in oids, name
    assert {name: entry for name, entry in after.items() if name in whole} == {
        name: entry for name, entry in whole.items() if name not in gone
    }
    assert set(programs.models()) == {FOUR}
    programs.llamactl("models", "rm", FOUR)
    assert programs.models() == {}
    left = {name for name, entry in tree(programs.folder).items() if entry[0] != "folder"}
    assert not [name for name in left if name.endswith((".gguf", ".json", ".etag"))]


def test_hf_finds_the_rest_whole_after_a_deletion_and_fetches_only_what_went(
    programs: Programs, hub: FakeHub
) -> None:
    by_hf(programs)
    complete = tree(programs.hub_dir)
    programs.llamactl("models", "rm", FOUR)
    before = len(hub.requests("cdn"))
    by_hf(programs)
    assert len(hub.requests("cdn")) == before + 1
    assert tree(programs.hub_dir) == complete


def test_other_revisions_and_files_of_hf_stay_whole(programs: Programs, hub: FakeHub) -> None:
    by_hf(programs)
    old = hub.routes.repos[REPO].main
    hub.push(REPO, {Q4: CONTENT[Q4] + b"newer"})
    programs.hf("download", REPO, Q4, "README.md")
    whole = tree(programs.hub_dir)
    programs.llamactl("models", "rm", SIX)
    after = tree(programs.hub_dir)
    snapshot = f"models--acme--Vision-GGUF/snapshots/{old}"
    gone = set(whole) - set(after)
    assert {name for name in gone if "snapshots" in name} == {
        f"{snapshot}/Q6_K",
        *(f"{snapshot}/{name}" for name in SHARDS),
    }
    assert len(gone) == 2 * len(SHARDS) + 1
    assert f"{snapshot}/{Q4}" in after
    assert "models--acme--Vision-GGUF/refs/main" in after


# While they fetch.


def partials(programs: Programs) -> list[Path]:
    ends = {".incomplete", ".downloadInProgress"}
    blobs = programs.repo_dir(REPO) / "blobs"
    return [path for path in blobs.iterdir() if path.suffix in ends]


@pytest.mark.parametrize("program", ["hf", "llama.cpp"])
def test_what_is_still_being_fetched_is_not_complete_and_survives_a_deletion_beside_it(
    programs: Programs, hub: FakeHub, program: str
) -> None:
    programs.hf("download", REPO, Q4)
    # The second shard comes so far and no farther until it is let go.
    repo = hub.routes.repos[REPO]
    xet_hash = repo.commits[repo.main][SHARDS[1]].content.xet_hash
    half = len(CONTENT[SHARDS[1]]) // 2
    stall = hub.fault("cdn", xet_hash, kind="stall", method="GET", after=half)
    if program == "hf":
        process = programs.start_hf("download", REPO, *SHARDS)
    else:
        process = programs.start_llama_cpp("-hf", SIX)
    try:
        wait_for("the second shard to be half there", lambda: stall.hits > 0)
        wait_for("its partial", lambda: partials(programs))
        listed = programs.models()
        assert listed[FOUR]["complete"] is True
        assert SIX not in listed or listed[SIX]["complete"] is False
        programs.llamactl("models", "rm", FOUR)
    finally:
        stall.release()
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output.decode(errors="replace")
    assert set(programs.models()) == {SIX}
    assert programs.models()[SIX]["complete"] is True
    # The name that leads every program to the snapshot is still there.
    assert (programs.repo_dir(REPO) / "refs" / "main").read_text() == repo.main
    snapshot = programs.repo_dir(REPO) / "snapshots" / repo.main
    assert [(snapshot / name).read_bytes() for name in SHARDS] == [CONTENT[name] for name in SHARDS]
