"""Which files a tag means: our rules beside those of today's llama.cpp, asked for the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llamactl.errors import NoSuchTag
from llamactl.models.hubfile import HubFile
from llamactl.models.reference import ModelRef
from llamactl.models.selection import select
from tests.e2e.hub_programs import Programs
from tests.fakes.fake_hub import FakeHub

FLAT = [
    "README.md",
    "imatrix.gguf",
    "m-BF16.gguf",
    "m-IQ4_XS.gguf",
    "m-Q4_K_M.gguf",
    "m-Q8_0.gguf",
    "mmproj-BF16.gguf",
    "mmproj-Q8_0.gguf",
    "mtp-m-Q8_0.gguf",
]
FOLDERS = [
    "BF16/m-BF16-00001-of-00002.gguf",
    "BF16/m-BF16-00002-of-00002.gguf",
    "Q6_K/m-Q6_K-00001-of-00003.gguf",
    "Q6_K/m-Q6_K-00002-of-00003.gguf",
    "Q6_K/m-Q6_K-00003-of-00003.gguf",
    "m-UD-Q4_K_XL.gguf",
    "m-UD-Q5_K_XL.gguf",
    "mmproj-F16.gguf",
]
NO_FOUR_BITS = ["m-Q5_K_M.gguf", "m-Q6_K.gguf", "m-Q8_0.gguf"]
ONE = ["m-Q5_1.gguf"]
BY_FOLDER = ["IQ2_M/m-00001-of-00002.gguf", "IQ2_M/m-00002-of-00002.gguf", "Q8_0/m.gguf"]
REPOSITORIES = {
    "org/flat": FLAT,
    "org/folders": FOLDERS,
    "org/no-four-bits": NO_FOUR_BITS,
    "org/one": ONE,
    "org/by-folder": BY_FOLDER,
}
SAME = [
    *[("org/flat", tag) for tag in ("", "Q4_K_M", "q8_0", "Q8_0", "bf16", "IQ4_XS", "Q2_K")],
    *[("org/folders", tag) for tag in ("Q6_K", "bf16", "UD-Q4_K_XL", "Q5_K_XL", "ud-q5_k_xl")],
    *[("org/no-four-bits", tag) for tag in ("Q5_K_M", "Q6_K", "Q8_0", "Q4_0")],
    *[("org/one", tag) for tag in ("", "Q5_1", "q5_1")],
]
#: The cases that docs/models.md names: the tag, what we take, what llama.cpp takes.
DIFFERENT = [
    ("org/no-four-bits", "", "m-Q5_K_M.gguf", "m-Q8_0.gguf"),
    ("org/flat", "latest", "m-Q4_K_M.gguf", None),
    ("org/flat", "K_M", None, "m-Q4_K_M.gguf"),
    ("org/flat", "m-Q8_0.gguf", "m-Q8_0.gguf", None),
    ("org/by-folder", "IQ2_M", "IQ2_M/m-00001-of-00002.gguf", None),
]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        for repo_id, names in REPOSITORIES.items():
            contents = {name: f"GGUF {name}".encode() * 20 for name in names}
            running.add_repo(repo_id, contents, lfs_threshold=1)
        yield running


def our_choice(repo_id: str, tag: str) -> tuple[str | None, str | None]:
    """The model and its projector, from the listing alone."""
    listing = [
        HubFile(name, 1, f"{number:064x}") for number, name in enumerate(REPOSITORIES[repo_id])
    ]
    try:
        chosen = select(ModelRef(repo_id, tag or "latest"), listing, None)
    except NoSuchTag:
        return None, None
    return chosen.ggufs[0].filename, chosen.mmproj.filename if chosen.mmproj else None


def their_choice(programs: Programs, repo_id: str, tag: str) -> tuple[str | None, str | None]:
    done = programs.llama_cpp("-hf", f"{repo_id}:{tag}" if tag else repo_id, check=False)
    if done.returncode != 0:
        return None, None
    snapshot = next((programs.repo_dir(repo_id) / "snapshots").iterdir())
    paths = [Path(line) for line in done.stdout.splitlines() if line.startswith(str(snapshot))]
    names = [path.relative_to(snapshot).as_posix() for path in paths]
    return names[0], next((name for name in names if "mmproj" in name), None)


@pytest.mark.parametrize(("repo_id", "tag"), SAME)
def test_llama_cpp_takes_the_same_files(
    hub: FakeHub, tmp_path: Path, repo_id: str, tag: str
) -> None:
    programs = Programs(tmp_path / "theirs", hub.endpoint)
    assert our_choice(repo_id, tag) == their_choice(programs, repo_id, tag)


@pytest.mark.parametrize(("repo_id", "tag", "ours", "theirs"), DIFFERENT)
def test_where_llama_cpp_takes_others_the_documentation_says_so(
    hub: FakeHub, tmp_path: Path, repo_id: str, tag: str, ours: str | None, theirs: str | None
) -> None:
    programs = Programs(tmp_path / "theirs", hub.endpoint)
    assert our_choice(repo_id, tag)[0] == ours
    assert their_choice(programs, repo_id, tag)[0] == theirs
