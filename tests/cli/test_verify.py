"""``llamactl models verify`` and ``variants`` on real caches and a hub on loopback."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.fakes.fake_hub import FakeHub
from tests.fakes.gguf_files import tiny_gguf_bytes


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        for name in ("org/one", "org/two"):
            hub.add_repo(
                name,
                {"m-Q4_K_M.gguf": tiny_gguf_bytes(), "m-Q8_0.gguf": tiny_gguf_bytes(seed=2)},
            )
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def damage(path: Path) -> None:
    """Turn a bit in the middle, as a failing disk does: same size, same time."""
    times = path.stat()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def download(run: Run, reference: str) -> Path:
    outcome = run("download", reference)
    assert outcome.code == 0, outcome.err
    return Path(outcome.out.strip())


def test_models_that_are_right_are_said_to_be(run: Run, hub: FakeHub) -> None:
    download(run, "org/one:Q4_K_M")
    outcome = run("models", "verify", "org/one:Q4_K_M")
    assert (outcome.code, outcome.out) == (0, "org/one:Q4_K_M is as the hub promised it\n")


def test_a_damaged_file_is_named_and_repaired_when_asked(run: Run, hub: FakeHub) -> None:
    download(run, "org/one:Q4_K_M")
    path = download(run, "org/two:Q4_K_M")
    damage(path)
    outcome = run("models", "verify")
    assert outcome.code == 1
    assert outcome.out == "org/one is as the hub promised it\n"
    assert path.name.removeprefix("org_two_") in outcome.err.splitlines()[-1]
    repaired = run("models", "verify", "org/two", "--repair")
    assert repaired.code == 0, repaired.err
    assert path.read_bytes() == tiny_gguf_bytes()
    assert run("models", "verify", "--json").code == 0


def test_verify_of_what_is_not_cached_is_exit_1(run: Run, hub: FakeHub) -> None:
    outcome = run("models", "verify", "org/one")
    assert (outcome.code, outcome.out) == (1, "")
    assert len(outcome.err.splitlines()) == 1


def test_verify_of_an_empty_cache_says_that_nothing_is_there(run: Run) -> None:
    outcome = run("models", "verify")
    assert (outcome.code, outcome.out) == (0, "")
    assert "No models yet" in outcome.err


def test_variants_are_listed_with_sizes_and_what_is_cached(run: Run, hub: FakeHub) -> None:
    download(run, "org/one:Q8_0")
    outcome = run("models", "variants", "org/one")
    assert outcome.code == 0, outcome.err
    heads, *rows = outcome.out.splitlines()
    assert heads.split() == ["TAG", "SIZE", "MEMORY", "FITS", "CACHED", "FILES"]
    assert {row.split()[0] for row in rows} == {"Q4_K_M", "Q8_0"}
    told = json.loads(run("models", "variants", "org/one", "--json").out)
    assert {each["tag"]: each["cached"] for each in told["variants"]} == {
        "Q4_K_M": False,
        "Q8_0": True,
    }


def test_variants_of_a_repo_that_is_not_there_is_exit_1(run: Run, hub: FakeHub) -> None:
    outcome = run("models", "variants", "org/none")
    assert (outcome.code, outcome.out) == (1, "")
    assert "org/none" in outcome.err
    assert run("models", "variants", "org/one:Q4_K_M").code == 2
