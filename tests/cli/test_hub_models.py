"""``llamactl models search`` and ``updates``, with a hub on loopback and with a server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Run
from tests.cli.rest import FakeRest
from tests.fakes.fake_hub import FakeHub, seeded_bytes

MODELS = "/backends/llama-cpp/models"
FILE = "m-Q4_K_M.gguf"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.add_repo("org/one-GGUF", {FILE: seeded_bytes(20_000, 1)})
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def test_search_lists_repos_and_says_when_there_are_none(run: Run, hub: FakeHub) -> None:
    outcome = run("models", "search", "one")
    assert outcome.code == 0, outcome.err
    heads, row = outcome.out.splitlines()
    assert (heads.split()[0], row.split()[0]) == ("REPO", "org/one-GGUF")
    [hit] = json.loads(run("models", "search", "one", "--json").out)
    assert set(hit) == {"repo", "downloads", "likes", "updated", "gated"}
    nothing = run("models", "search", "nobody-has-this")
    assert (nothing.code, nothing.out) == (0, "") and nothing.err


def test_updates_name_the_files_that_the_hub_has_newer(run: Run, hub: FakeHub) -> None:
    assert run("download", "org/one-GGUF:Q4_K_M").code == 0
    same = run("models", "updates")
    assert (same.code, same.out) == (0, ""), same.err
    hub.push("org/one-GGUF", {FILE: seeded_bytes(20_000, 2)})
    assert "newer there" in run("models", "variants", "org/one-GGUF").out
    _heads, row = run("models", "updates", "org/one-GGUF").out.splitlines()
    assert row.split() == ["org/one-GGUF:Q4_K_M", FILE]
    [update] = json.loads(run("models", "updates", "--json").out)
    assert update["changed"] == [FILE]
    assert run("download", "org/one-GGUF:Q4_K_M").code == 0
    assert run("models", "updates").out == ""
    unknown = run("models", "updates", "org/two-GGUF")
    assert unknown.code == 1 and "org/two-GGUF is not in the cache" in unknown.err


def test_a_hub_that_does_not_answer_is_exit_1_and_a_wrong_name_is_exit_2(run: Run) -> None:
    assert run("models", "search", "one").code == 1
    assert run("models", "updates", "org/one:Q4_K_M").code == 2
    assert run("models", "updates", "../../x").code == 2


def test_a_named_server_is_asked(run: Run, rest: FakeRest) -> None:
    update = {"repo": "org/one", "tag": "Q8_0", "changed": ["a.gguf", "b.gguf"]}
    rest.answers[f"GET {MODELS}/updates"] = (200, [update])
    rest.answers[f"GET {MODELS}/search"] = (200, [])
    assert run("models", "updates", "org/one").out.splitlines()[-1].endswith("a.gguf, b.gguf")
    assert run("models", "search", "a b").code == 0
    assert [each.target for each in rest.asked] == [
        f"/api/v1{MODELS}/updates?repo=org%2Fone",
        f"/api/v1{MODELS}/search?q=a+b",
    ]


def test_variants_of_a_named_server_say_what_would_fit_and_what_is_refused(
    run: Run, rest: FakeRest
) -> None:
    variant = {
        "tag": "Q4_K_M",
        "size": 2_100_000_000,
        "memory": {"total": 3_000_000_000},
        "fits": False,
        "fits_when_idle": True,
        "newer": False,
        "cached": True,
        "files": [{}, {}],
    }
    refused = "org/one is gated: accept its licence."
    answer = {"variants": [variant, {**variant, "fits": None}], "refused": refused}
    rest.answers[f"GET {MODELS}/variants"] = (200, answer)
    outcome = run("models", "variants", "org/one", "--ctx-size", "4096")
    _heads, first, second = outcome.out.splitlines()
    assert first.split("  ")[:4] == ["Q4_K_M", "2.1 GB", "3.0 GB", "when nothing else runs"]
    assert second.split()[5] == "?"
    assert outcome.err == f"{refused}\n"
    assert rest.asked[0].target == f"/api/v1{MODELS}/variants?repo=org%2Fone&ctx_size=4096"
