"""What a start runs, what that writes, and why it may never run."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest

from llamactl.errors import (
    StartFailed,
)
from tests.instances.conftest import PATIENCE, Stage, StageFactory, eventually


def test_the_child_gets_its_key_by_its_environment_only(stage: Stage) -> None:
    stage.run()
    with stage.supervisor.lease("one") as lease:
        key = lease.api_key.reveal()
    start = stage.llama.events("start")[-1]
    assert start["env"]["LLAMA_API_KEY"] == key and len(key) > 40
    assert key not in " ".join(start["argv"])
    assert key not in repr(lease.__dict__)
    assert key.encode() not in stage.supervisor.logs("one")
    assert start["stdin"] == "/dev/null"


def test_each_start_has_another_key(stage: Stage) -> None:
    stage.run()
    stage.supervisor.restart_instance("one", wait=PATIENCE)
    keys = {event["env"]["LLAMA_API_KEY"] for event in stage.llama.events("start")}
    assert len(keys) == 2


def test_the_command_line_has_the_options_and_the_instances_name(stage: Stage) -> None:
    model = str(stage.llama.model)
    stage.run(backend_options={"model": model, "ctx_size": 512, "no_warmup": True})
    argv = stage.llama.events("start")[0]["argv"]
    own = argv[argv.index("--model") :]
    port = str(stage.get().port)
    assert own == [
        *("--model", model, "--ctx-size", "512", "--no-warmup", "--alias", "one"),
        *("--host", "127.0.0.1", "--port", port),
    ]


def test_logs_have_what_it_wrote_and_the_line_that_ran(stage: Stage) -> None:
    stage.run(**stage.fake("--fake-print", "hello"))
    logs = eventually(lambda: b"server is listening" in stage.supervisor.logs("one"))
    assert logs
    text = stage.supervisor.logs("one").decode()
    assert "hello" in text and "--- llamactl starts: " in text and "--port" in text
    assert stage.supervisor.logs("one", 1).count(b"\n") == 1


def test_no_log_has_the_value_of_a_flag_that_opens_something(stage: Stage) -> None:
    secret = {"--service-token": "opensesame", "--relay": "https://me:opensesame@example.org/"}
    stage.create(
        backend_options={"model": str(stage.llama.model), "extra_args": secret}, max_restarts=0
    )
    with contextlib.suppress(StartFailed):
        stage.supervisor.start_instance("one", wait=PATIENCE)
    first = stage.supervisor.logs("one").decode().splitlines()[0]
    assert "--service-token '***' --relay 'https://***@example.org/'" in first


def test_following_the_log_ends_with_the_instance(stage: Stage) -> None:
    stage.create()
    blocks: list[bytes] = []
    follower = threading.Thread(target=lambda: blocks.extend(stage.supervisor.follow_logs("one")))
    follower.start()
    eventually(follower.is_alive)
    stage.supervisor.start_instance("one", wait=PATIENCE)
    stage.supervisor.stop_instance("one", wait=PATIENCE)
    stage.supervisor.delete("one")
    follower.join(PATIENCE)
    assert not follower.is_alive()


def test_a_follower_sees_every_life_of_the_instance(stage: Stage) -> None:
    stage.run()
    following = stage.supervisor.follow_logs("one", None)
    seen = bytearray()
    for starts in (1, 2, 3):
        while seen.count(b"server is listening") < starts:
            seen += next(following)
        stage.supervisor.restart_instance("one")
    assert seen.startswith(b"--- llamactl starts: ")
    with stage.supervisor.whole_log("one") as log:
        assert b"".join(log.pieces()).startswith(seen)


@pytest.mark.parametrize("content", [b"", b"<html>"])
def test_a_model_that_can_never_run_fails_at_once_without_a_process(
    stage: Stage, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    stage.create(backend_options={"model": str(path)})
    with pytest.raises(StartFailed, match="no GGUF file"):
        stage.supervisor.start_instance("one", wait=PATIENCE)
    failed = stage.get()
    assert failed.status == "failed" and failed.error is not None
    assert "no GGUF file. llama.cpp loads GGUF files only" in failed.error
    assert failed.restarts == 0 and not stage.llama.events()


def test_a_path_that_does_not_exist_fails_naming_it(stage: Stage) -> None:
    stage.create(backend_options={"model": "/nowhere/a.gguf"})
    with pytest.raises(StartFailed, match=r"/nowhere/a\.gguf"):
        stage.supervisor.start_instance("one", wait=PATIENCE)


def test_a_program_that_does_not_exist_fails_saying_what_to_install(
    make_stage: StageFactory,
) -> None:
    stage = make_stage({"backends.llama-cpp.command": "/nowhere/llama-server"})
    stage.create()
    with pytest.raises(StartFailed, match="/nowhere/llama-server") as caught:
        stage.supervisor.start_instance("one", wait=PATIENCE)
    assert "llama.cpp" in caught.value.hint


def test_what_is_no_longer_allowed_does_not_start(make_stage: StageFactory) -> None:
    stage = make_stage({"security.allow_command_override": True})
    stage.create(command_override="/bin/true")
    stage.stop()
    later = make_stage()
    with pytest.raises(StartFailed, match="not allowed"):
        later.supervisor.start_instance("one", wait=PATIENCE)


def test_another_command_runs_where_that_is_allowed(make_stage: StageFactory) -> None:
    stage = make_stage({"security.allow_command_override": True})
    override = " ".join([*stage.llama.argv, "--fake-print", "overridden"])
    stage.run(command_override=override)
    eventually(lambda: b"overridden" in stage.supervisor.logs("one"))


def test_a_router_gets_its_preset_in_a_file_of_its_own(stage: Stage) -> None:
    preset = "version = 1\n[a]\nctx-size = 512\n"
    stage.run(backend_options={}, preset_ini=preset)
    argv = stage.llama.events("start")[0]["argv"]
    path = Path(argv[argv.index("--models-preset") + 1])
    assert path.read_text() == preset and path.stat().st_mode & 0o777 == 0o600
    assert "--model" not in argv and "--alias" not in argv
    stage.supervisor.stop_instance("one", wait=PATIENCE)
    stage.supervisor.delete("one")
    assert not path.exists()


def test_a_preset_beside_a_model_is_refused(stage: Stage) -> None:
    stage.create(preset_ini="[a]\nctx-size = 1\n")
    with pytest.raises(StartFailed, match="router mode"):
        stage.supervisor.start_instance("one", wait=PATIENCE)
