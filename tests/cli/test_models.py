"""``llamactl models`` with and without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, held
from tests.cli.rest import FakeRest
from tests.fakes.gguf_files import tiny_gguf

MODELS = "/backends/llama-cpp/models"


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A model that lies in the flat cache, as an older llama.cpp left it."""
    path = tmp_path / "flat/org_name_tiny-Q4_K_M.gguf"
    tiny_gguf(path)
    (tmp_path / "flat/manifest=org=name=Q4_K_M.json").write_text(
        json.dumps({"ggufFile": {"rfilename": "tiny-Q4_K_M.gguf", "size": path.stat().st_size}})
    )
    return path


def test_without_a_server_the_cache_itself_is_listed(run: Run, cached: Path) -> None:
    outcome = run("models")
    assert outcome.code == 0, outcome.err
    heads, row = outcome.out.splitlines()
    assert heads.startswith("MODEL")
    assert row.startswith("org/name:Q4_K_M")
    assert row.endswith(str(cached))
    (model,) = json.loads(run("models", "--json").out)
    assert (model["repo"], model["tag"], model["file_count"]) == ("org/name", "Q4_K_M", 1)
    assert model["files"][0]["path"] == str(cached)


def test_show_tells_what_the_file_says_of_itself_and_what_it_takes(run: Run, cached: Path) -> None:
    outcome = run("models", "show", "org/name:q4_k_m", "--ctx-size", "4096")
    assert outcome.code == 0, outcome.err
    title, *lines = outcome.out.splitlines()
    assert title == "org/name:Q4_K_M"
    told = {line[2:].split("  ")[0]: line.split("  ")[-1] for line in lines}
    assert told["Architecture"] == "llama"
    assert told["File"] == str(cached)
    assert "with 4,096 tokens: " in told["Memory"] and "weights" in told["Memory"]
    [model] = json.loads(run("models", "show", "org/name", "--json").out)
    assert model["facts"]["Context length"] == "8,192"
    assert model["memory"]["weights"] == cached.stat().st_size
    assert model["chat_template"]
    missing = run("models", "show", "org/other")
    assert missing.code == 1 and "org/other is not in the cache" in missing.err


def test_show_bears_with_a_file_that_is_no_gguf(run: Run, cached: Path) -> None:
    cached.write_bytes(b"GGUF, and then nothing of the kind")
    outcome = run("models", "show", "org/name")
    assert outcome.code == 0, outcome.err
    assert "GGUF" in outcome.out and "not known" in outcome.out


def test_an_empty_cache_is_a_message_and_no_result(run: Run) -> None:
    outcome = run("models")
    assert (outcome.code, outcome.out) == (0, "")
    assert "llamactl download" in outcome.err


def test_rm_deletes_the_tag_and_says_so(run: Run, cached: Path) -> None:
    outcome = run("models", "rm", "org/name:q4_k_m")
    assert (outcome.code, outcome.out) == (0, ""), outcome.err
    assert not cached.exists()
    again = run("models", "rm", "org/name:q4_k_m")
    assert again.code == 1
    assert again.err == "org/name:q4_k_m is not in the cache. Check the spelling.\n"


def test_rm_without_a_tag_deletes_every_tag_of_the_repo(run: Run, cached: Path) -> None:
    assert run("models", "rm", "org/name", "--yes").code == 0
    assert not cached.exists()


def test_rm_without_a_tag_asks_naming_the_tags_and_never_about_nothing(
    run: Run, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.confirm", lambda text, **_how: asked.append(text))
    assert "not in the cache" in run("models", "rm", "org/other").err
    assert asked == []
    assert run("models", "rm", "org/name").code == 0
    assert asked == ["Delete Q4_K_M of org/name?"]


@pytest.mark.parametrize("reference", ["../../x", "name", "org/name:", "org/name:a b", ""])
def test_rm_of_something_that_is_no_reference_is_bad_usage(
    run: Run, cached: Path, reference: str
) -> None:
    assert run("models", "rm", reference).code == 2
    assert cached.exists()


def test_a_server_that_holds_the_data_directory_is_asked_with_its_own_key(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeRest() as rest:
        rest.answers[f"GET {MODELS}"] = (200, [])
        rest.answers[f"DELETE {MODELS}"] = (204, b"")
        with held(tmp_path / "data", pid=1, url=rest.url):
            (tmp_path / "data/management.key").write_text("the-key-of-this-machine\n")
            assert run("models").code == 0
            assert run("models", "rm", "org/name:Q4_K_M").code == 0
    listed, deleted = rest.asked
    assert listed.headers["authorization"] == "Bearer the-key-of-this-machine"
    assert deleted.target == f"/api/v1{MODELS}?repo=org%2Fname&tag=Q4_K_M"


def test_the_key_of_this_machine_goes_to_no_other_address(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/management.key").write_text("the-key-of-this-machine\n")
    with FakeRest() as rest:
        rest.answers[f"GET {MODELS}"] = (401, {"error": "missing_key", "details": "No key."})
        outcome = run("models", "--url", rest.url)
    assert outcome.code == 1
    assert "authorization" not in rest.asked[0].headers


def test_beside_a_download_of_another_command_the_list_still_comes(
    run: Run, tmp_path: Path, cached: Path
) -> None:
    with held(tmp_path / "data", pid=4242):
        assert str(cached) in run("models").out
        refused = run("models", "rm", "org/name:Q4_K_M")
    assert refused.code == 1
    assert "process 4242" in refused.err
    assert cached.exists()


def test_the_path_of_a_model_is_meant_from_here_not_from_the_server(
    run: Run, tmp_path: Path, cached: Path
) -> None:
    with FakeRest() as rest:
        rest.answers["POST /instances/tiny"] = (201, {"name": "tiny", "status": "stopped"})
        rest.answers["GET /instances/tiny/plan"] = (200, {"fits": True, "why": ""})
        with held(tmp_path / "data", pid=1, url=rest.url):
            for model in (f"flat/{cached.name}", "org/name:Q4_K_M"):
                assert run("instances", "create", "tiny", "--model", model).code == 0
    sent = [asked.body["backend_options"]["model"] for asked in rest.asked if asked.body]
    assert sent == [str(cached), "org/name:Q4_K_M"]


def test_a_named_server_deletes(run: Run, rest: FakeRest) -> None:
    rest.answers[f"DELETE {MODELS}"] = (204, b"")
    assert run("models", "rm", "org/name:Q4_K_M").code == 0
    assert rest.asked[0].target == f"/api/v1{MODELS}?repo=org%2Fname&tag=Q4_K_M"


def test_a_key_of_the_configuration_opens_the_server_of_this_machine(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMACTL_MANAGEMENT_KEYS", "k" * 32)
    with FakeRest() as rest, held(tmp_path / "data", pid=1, url=rest.url):
        rest.answers["GET /instances"] = (200, [])
        assert run("instances").code == 0
    assert rest.asked[0].headers["authorization"] == f"Bearer {'k' * 32}"


def test_without_a_server_it_is_said_how_to_have_one(run: Run, tmp_path: Path) -> None:
    outcome = run("instances")
    assert outcome.code == 1
    assert outcome.err.startswith(f"No server runs on {tmp_path / 'data'}. Start one")
