"""The supervisor on the real llama-server."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamactl.errors import StartFailed, StartTimeout, UnsupportedFlag
from llamactl.instances import processes
from llamactl.instances.modelfiles import ResolvedModel
from tests.fakes.fake_hub import FakeHub
from tests.fakes.gguf_files import tiny_gguf
from tests.instances.asking import slots_while_writing
from tests.instances.conftest import PATIENCE, Stage, StageFactory, eventually
from tests.requirements import require, require_module


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_module("gguf")
    return tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")[0]


@pytest.fixture
def real(make_stage: StageFactory) -> Iterator[Stage]:
    program = require("llama-server")
    settings = {"backends.llama-cpp.command": program, "backends.llama-cpp.args": []}
    yield make_stage(settings, grace=PATIENCE)


def ask(stage: Stage, method: str, path: str, body: Any = None, name: str = "one") -> Any:
    with stage.supervisor.lease(name) as lease:
        connection = http.client.HTTPConnection(lease.host, lease.port, timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {lease.api_key.reveal()}"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer


def small(model: Path, **more: Any) -> dict[str, Any]:
    return {"model": str(model), "ctx_size": 512, "parallel": 1, **more}


def test_it_starts_answers_and_stops(real: Stage, model: Path) -> None:
    real.run(backend_options=small(model))
    answer = ask(real, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 3})
    assert answer["choices"] and answer["model"] == "one"
    assert real.supervisor.stop_instance("one", wait=PATIENCE).exit_code == 0
    assert not real.processes()


def test_its_slots_tell_how_far_an_answer_is(real: Stage, model: Path) -> None:
    real.run(backend_options={"model": str(model), "parallel": 1, "context_shift": True})
    first, second = slots_while_writing(real)
    assert len(first.working) == len(second.working) == 1
    assert first.working.keys() == second.working.keys()
    assert second.written_since(first) > 0


def test_a_crash_is_restarted(real: Stage, model: Path) -> None:
    first = real.run(backend_options=small(model), restart_delay=0)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSEGV)
    eventually(lambda: real.get().pid not in (None, first.pid))
    assert real.until("running").restarts == 1


def test_a_flag_that_a_newer_build_lost_is_named_and_not_tried_again(
    real: Stage, model: Path
) -> None:
    stored_before = real.options(backend_options=small(model, extra_args={"--of-old": True}))
    real.supervisor._registry.create("one", stored_before)
    with pytest.raises(StartFailed, match="does not know the flag --of-old"):
        real.supervisor.start_instance("one", wait=PATIENCE)
    assert real.get().restarts == 1


def test_a_damaged_model_is_told_in_plain_words(real: Stage, model: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    real.create(backend_options=small(damaged))
    with pytest.raises(StartFailed, match="damaged or not whole"):
        real.supervisor.start_instance("one", wait=PATIENCE)


def test_three_models_take_turns_on_two_places(make_stage: StageFactory, model: Path) -> None:
    program = require("llama-server")
    stage = make_stage(
        {
            "backends.llama-cpp.command": program,
            "backends.llama-cpp.args": [],
            "instances.max_running_instances": 2,
        }
    )
    for name in ("a", "b", "c"):
        stage.create(name, backend_options=small(model))
    for name in ("a", "b", "c", "a", "c"):
        body = {"prompt": "a", "max_tokens": 2}
        assert ask(stage, "POST", "/v1/completions", body, name)["model"] == name
        assert len(stage.processes()) <= 2
    statuses = {each.name: each.status for each in stage.supervisor.instances()}
    assert statuses == {"a": "running", "b": "stopped", "c": "running"}


@pytest.fixture
def cached(real: Stage, model: Path) -> str:
    """A model in the Hub cache, as a download leaves it."""
    repo = real.config.llama_cpp.hub_dir / "models--org--tiny-GGUF"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    commit = "a" * 40
    for folder in ("blobs", f"snapshots/{commit}", "refs"):
        (repo / folder).mkdir(parents=True)
    shutil.copy(model, repo / "blobs" / digest)
    (repo / "snapshots" / commit / "tiny-Q4_K_M.gguf").symlink_to(f"../../blobs/{digest}")
    (repo / "refs" / "main").write_text(commit)
    return "org/tiny-GGUF:Q4_K_M"


def test_hf_repo_finds_what_was_downloaded_without_a_network(real: Stage, cached: str) -> None:
    real.run(backend_options={"hf_repo": cached, "ctx_size": 512})
    assert ask(real, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 2})["choices"]


def test_hf_repo_of_a_private_repo_loads_with_the_token_from_the_mirror(
    make_stage: StageFactory, model: Path
) -> None:
    program = require("llama-server")
    settings = {"backends.llama-cpp.command": program, "backends.llama-cpp.args": []}
    with FakeHub() as hub:
        hub.add_repo("org/tiny-GGUF", {"tiny-Q4_K_M.gguf": model.read_bytes()}, private=True)
        stage = make_stage(settings, hub=(hub.endpoint, hub.token))
        stage.run(backend_options={"hf_repo": "org/tiny-GGUF:Q4_K_M", "ctx_size": 512})
        answer = ask(stage, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 2})
        assert answer["choices"] and not hub.leaks
        logs = stage.supervisor.logs("one")
        assert hub.token.encode() not in logs
        stage.supervisor.stop_instance("one", wait=PATIENCE)


def hub_stage(make_stage: StageFactory, hub: FakeHub, model: Path, **times: float) -> Stage:
    """A stage whose instance ``one`` has to fetch its model from the hub."""
    hub.add_repo("org/tiny-GGUF", {"tiny-Q4_K_M.gguf": model.read_bytes()})
    settings = {
        "backends.llama-cpp.command": require("llama-server"),
        "backends.llama-cpp.args": [],
    }
    stage = make_stage(settings, hub=(hub.endpoint, hub.token), **times)
    stage.create(
        backend_options={"hf_repo": "org/tiny-GGUF:Q4_K_M", "ctx_size": 512}, auto_restart=False
    )
    return stage


def test_a_load_that_fetches_is_cut_neither_by_the_waiting_limit_nor_for_its_silence(
    make_stage: StageFactory, model: Path
) -> None:
    with FakeHub() as hub:
        # For seconds nothing is written to the log; the file grows in the cache.
        hub.throttle(model.stat().st_size // 6)
        stage = hub_stage(make_stage, hub, model, load_patience=3.0)
        with pytest.raises(StartTimeout, match="is not ready") as caught:
            stage.supervisor.lease("one", timeout=0.5)
        assert "It goes on loading" in caught.value.details
        assert stage.until("running").restarts == 0
        assert ask(stage, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 2})["choices"]
        stage.supervisor.stop_instance("one", wait=PATIENCE)


def test_a_load_that_fetches_nothing_any_more_ends(make_stage: StageFactory, model: Path) -> None:
    with FakeHub() as hub:
        stall = hub.fault("cdn", "", kind="stall", after=1000, times=None)
        stage = hub_stage(make_stage, hub, model, load_patience=3.0)
        with pytest.raises(StartFailed, match="no progress"):
            stage.supervisor.start_instance("one", wait=PATIENCE)
        assert stall.hits and not stage.processes()


def test_a_router_offers_loads_and_ends_what_was_downloaded(real: Stage, cached: str) -> None:
    real.run(backend_options={"ctx_size": 512})
    listed = [entry["id"] for entry in ask(real, "GET", "/models")["data"]]
    assert listed == [cached]
    body = {"model": cached, "prompt": "a", "max_tokens": 2}
    assert ask(real, "POST", "/v1/completions", body)["choices"]
    children = real.processes()
    assert len(children) == 2
    real.supervisor.stop_instance("one", wait=PATIENCE)
    assert all(processes.start_ticks(pid) is None for pid in children)


def test_of_a_router_the_models_that_it_has_loaded_are_in_use(
    real: Stage, cached: str, model: Path
) -> None:
    repo = real.config.llama_cpp.hub_dir / "models--org--tiny-GGUF"
    (path,) = repo.glob("snapshots/*/*.gguf")
    (blob,) = repo.glob("blobs/*")
    real.models[cached] = ResolvedModel(path)
    real.run(backend_options={"ctx_size": 512})
    assert real.supervisor.users_of([blob]) == []
    ask(real, "POST", "/models/load", {"model": cached})
    eventually(lambda: real.supervisor.users_of([blob]) == ["one"], "in use")
    assert real.supervisor.users_of([model]) == []
    ask(real, "POST", "/models/unload", {"model": cached})
    eventually(lambda: real.supervisor.users_of([blob]) == [], "free again")


def test_a_running_router_lists_its_models_to_whoever_looks(real: Stage, cached: str) -> None:
    real.create("one", backend_options={})
    assert real.supervisor.router_models("one") is None
    real.supervisor.start_instance("one", wait=60)
    listed = real.supervisor.router_models("one") or ()
    assert cached in [model.name for model in listed]
    assert real.get("one").in_flight == 0 and real.get("one").last_used is None


def test_a_router_that_is_killed_leaves_no_child(real: Stage, cached: str) -> None:
    running = real.run(backend_options={"ctx_size": 512}, auto_restart=False)
    ask(real, "POST", "/v1/completions", {"model": cached, "prompt": "a", "max_tokens": 2})
    assert running.pid is not None and len(real.processes()) == 2
    os.kill(running.pid, signal.SIGKILL)
    real.until("failed")
    eventually(lambda: not real.processes())


def test_the_backend_tells_its_version_and_help(real: Stage) -> None:
    info = real.supervisor.backend()
    assert info.kind == "command" and info.version
    assert "--ctx-size" in (real.supervisor.backend_output("--help") or "")


def test_a_flag_that_the_installed_build_does_not_have_is_named_when_it_is_saved(
    real: Stage, model: Path
) -> None:
    with pytest.raises(UnsupportedFlag, match="no flag --ctx-sizes") as caught:
        real.create(backend_options=small(model, extra_args={"--ctx-sizes": 5}))
    assert caught.value.hint == "Did you mean --ctx-size?"
    assert caught.value.field == "backend_options.extra_args.--ctx-sizes"
    assert not real.supervisor.instances()
    previewed = real.options(backend_options=small(model, extra_args={"--ctx-sizes": 5}))
    with pytest.raises(UnsupportedFlag, match="no flag --ctx-sizes"):
        real.supervisor.preview("one", previewed)


def test_flags_that_the_installed_build_calls_otherwise_go_on_working(
    real: Stage, model: Path
) -> None:
    real.run(backend_options=small(model, no_mmap=True, draft_max=5, no_webui=True))
    assert b"--load-mode none" in real.supervisor.logs("one")
