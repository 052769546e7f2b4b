"""``llamactl doctor`` says what is wrong, and only then fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Outcome, Run, held
from tests.fakes.fake_hub import FakeHub
from tests.fakes.gguf_files import tiny_gguf_bytes


@pytest.fixture
def llama_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A llama-server that tells its version."""
    program = tmp_path / "bin/llama-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'version: 1234 (abcdef)' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("LLAMACTL_LLAMACPP_COMMAND", str(program))
    return program


def findings(outcome: Outcome) -> dict[str, tuple[bool, str]]:
    return {line["subject"]: (line["passed"], line["text"]) for line in json.loads(outcome.out)}


def test_a_machine_that_has_everything_passes(
    run: Run, llama_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub() as hub:
        hub.add_repo("org/name", {"m-Q4_K_M.gguf": tiny_gguf_bytes()})
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        outcome = run("doctor")
        told = findings(run("doctor", "--json"))
    assert outcome.code == 0, outcome.out
    assert all(line.startswith("ok  ") for line in outcome.out.splitlines())
    assert told["llama.cpp"] == (True, f"{llama_server}, 1234 (abcdef)")
    assert told["hub"] == (True, hub.endpoint)
    assert told["token"] == (True, "accepted by the hub")
    assert hub.token not in outcome.out


def test_a_wrong_token_is_told_apart_from_an_unreachable_hub(
    run: Run, llama_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with FakeHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        told = findings(run("doctor", "--json"))
    assert told["hub"][0]
    assert not told["token"][0]
    assert "hf_wrong" not in told["token"][1]


def test_what_is_wrong_is_named_and_the_exit_code_is_1(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flat").write_text("a file where the directory would be")
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    monkeypatch.setenv("LLAMACTL_LLAMACPP_COMMAND", str(tmp_path / "no-llama-server"))
    monkeypatch.setenv("LLAMACTL_DOWNLOADS_MIN_FREE_SPACE", "1000000TB")
    outcome = run("doctor", "--json")
    told = findings(outcome)
    assert outcome.code == 1
    failed = {subject for subject, (passed, _) in told.items() if not passed}
    assert failed == {"flat cache", "free space", "llama.cpp", "hub"}
    assert "no-llama-server" in told["llama.cpp"][1]
    assert "127.0.0.1" in told["hub"][1]
    assert told["token"] == (True, "not tried")


def test_a_hub_that_is_not_to_be_asked_is_no_failure(
    run: Run, llama_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = findings(run("doctor", "--json"))
    assert told["hub"][0]
    assert "HF_HUB_OFFLINE" in told["hub"][1]


def test_whoever_works_in_the_data_directory_is_named(
    run: Run, llama_server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert findings(run("doctor", "--json"))["server"] == (True, "does not run")
    with held(tmp_path / "data", pid=4242):
        assert "process 4242" in findings(run("doctor", "--json"))["server"][1]
    with held(tmp_path / "data", pid=1, url="http://127.0.0.1:9"):
        assert findings(run("doctor", "--json"))["server"] == (True, "runs at http://127.0.0.1:9")
