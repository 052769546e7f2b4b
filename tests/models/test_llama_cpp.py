"""The real llama.cpp finds offline what was published, under every tag that its rules know."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llamactl.models.filenames import plain_tag_of
from llamactl.models.reference import ModelRef
from tests.models.conftest import COMMIT, NEXT_COMMIT, REPO, Caches, hub_file, listing_of
from tests.requirements import require

SHARDED = [f"Q3_K_M/model-Q3_K_M-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
REPOSITORY = [
    "README.md",
    "preset.ini",
    "model-BF16.gguf",
    "model-Q4_K_M.gguf",
    "model-Q8_0.gguf",
    "model-UD-Q5_K_XL.gguf",
    "model.i1-IQ3_XXS.gguf",
    "mmproj-model-BF16.gguf",
    "mtp-model-Q4_0.gguf",
    *SHARDED,
]

Find = Callable[[str], Path | None]


@pytest.fixture
def run(caches: Caches, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    server = Path(require("llama-server"))

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = server.with_name(program)
        if not path.is_file():
            pytest.skip(f"this llama.cpp was built without {program}")
        return subprocess.run(
            [path, *arguments],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LLAMA_CACHE": str(caches.hub)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def find(run: Callable[..., subprocess.CompletedProcess[str]]) -> Find:
    """The model that ``-hf REF --offline`` would load, or None."""

    def ask(ref: str) -> Path | None:
        done = run("llama", "download", "-hf", ref, "--offline")
        return Path(done.stdout.splitlines()[0]) if done.returncode == 0 else None

    return ask


@pytest.mark.parametrize(
    ("tag", "filename"),
    [
        ("latest", "model-Q4_K_M.gguf"),
        ("Q4_K_M", "model-Q4_K_M.gguf"),
        ("q8_0", "model-Q8_0.gguf"),
        ("bf16", "model-BF16.gguf"),
        ("UD-Q5_K_XL", "model-UD-Q5_K_XL.gguf"),
        ("Q5_K_XL", "model-UD-Q5_K_XL.gguf"),
        ("IQ3_XXS", "model.i1-IQ3_XXS.gguf"),
        ("Q3_K_M", SHARDED[0]),
    ],
)
def test_llama_cpp_finds_what_was_downloaded_under_the_same_tag(
    caches: Caches, find: Find, tag: str, filename: str
) -> None:
    caches.download(f"{REPO}:{tag}", listing_of(REPOSITORY))
    found = find(REPO if tag == "latest" else f"{REPO}:{tag}")
    assert found == caches.snapshot() / filename
    assert found.samefile(caches.cache.gguf_path(ModelRef(REPO, tag)))


def test_llama_cpp_lists_what_we_list(
    caches: Caches, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for tag in ("Q4_K_M", "Q8_0", "UD-Q5_K_XL", "Q3_K_M"):
        caches.download(f"{REPO}:{tag}", listing_of(REPOSITORY))
    done = run("llama-server", "--cache-list")
    listed = {line.split()[-1] for line in done.stdout.splitlines() if REPO in line}
    ours = {f"{REPO}:{plain_tag_of(m.gguf.name).upper()}" for m in caches.cache.list()}
    assert listed == ours


def test_llama_cpp_finds_every_tag_after_main_moved(caches: Caches, find: Find) -> None:
    for tag in ("Q4_K_M", "Q3_K_M"):
        caches.download(f"{REPO}:{tag}", listing_of(REPOSITORY))
    changed = {"model-Q4_K_M.gguf"}
    listing = [hub_file(name, 2 if name in changed else 1) for name in REPOSITORY]
    caches.download(f"{REPO}:Q4_K_M", listing, commit=NEXT_COMMIT)
    newest = caches.snapshot(commit=NEXT_COMMIT)
    assert find(f"{REPO}:Q4_K_M") == newest / "model-Q4_K_M.gguf"
    assert find(f"{REPO}:Q3_K_M") == newest / SHARDED[0]


def test_llama_cpp_finds_nothing_of_a_download_that_is_not_whole(
    caches: Caches, find: Find
) -> None:
    for name in SHARDED:
        caches.deliver(REPO, hub_file(name))
    assert find(f"{REPO}:Q3_K_M") is None
    caches.download(f"{REPO}:Q3_K_M", listing_of(REPOSITORY))
    assert find(f"{REPO}:Q3_K_M") == caches.snapshot(commit=COMMIT) / SHARDED[0]
    caches.cache.delete(REPO, "Q3_K_M")
    assert find(f"{REPO}:Q3_K_M") is None
