"""An instance's life as a person sees it: created, started, stopped, changed, deleted."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from llamactl.errors import (
    InstanceExists,
    InstanceNotFound,
    InstanceRunning,
    InvalidInstanceName,
    InvalidRequest,
    MaxInstancesReached,
    ShuttingDown,
    StartTimeout,
)
from llamactl.instances.snapshot import instance_json
from tests.instances.conftest import PATIENCE, Stage, StageFactory, eventually


def test_a_new_instance_is_stopped_and_nothing_runs(stage: Stage) -> None:
    made = stage.create()
    assert (made.name, made.status, made.pid, made.port) == ("one", "stopped", None, None)
    assert stage.supervisor.instances() == [made] == [stage.get()]
    assert not stage.llama.events()


def test_the_json_has_every_field_of_the_contract(stage: Stage) -> None:
    stage.run()
    written = json.loads(json.dumps(instance_json(stage.get())))
    assert set(written) == {
        *("id", "name", "status", "created", "options", "port", "pid", "health", "restarts"),
        *("exit_code", "error", "in_flight", "requests", "last_used"),
        *("memory_bytes", "tokens_per_second"),
    }
    assert written["status"] == "running" and written["health"] == "ok"
    assert written["options"]["backend_options"] == {"model": str(stage.llama.model)}


def test_running_means_that_our_own_child_answers(make_stage: StageFactory) -> None:
    stage = make_stage()
    stage.llama.loading.touch()
    stage.create()
    assert stage.supervisor.start_instance("one").status == "starting"
    assert stage.get().health == "loading"
    stage.llama.loading.unlink()
    running = stage.supervisor.start_instance("one", wait=PATIENCE)
    listening = stage.llama.events("listening")
    assert [event["port"] for event in listening] == [running.port]
    assert listening[0]["pid"] == running.pid


def test_a_start_is_asked_for_twice_and_happens_once(make_stage: StageFactory) -> None:
    stage = make_stage(load=0.1)
    stage.create()
    for _ in range(5):
        stage.supervisor.start_instance("one")
    stage.supervisor.start_instance("one", wait=PATIENCE)
    stage.supervisor.start_instance("one", wait=PATIENCE)
    assert len(stage.llama.events("start")) == 1


def test_stop_ends_the_process_and_a_second_one_changes_nothing(stage: Stage) -> None:
    pid = stage.run().pid
    assert stage.supervisor.stop_instance("one").status == "stopping"
    stopped = stage.supervisor.stop_instance("one", wait=PATIENCE)
    assert (stopped.status, stopped.pid, stopped.port, stopped.error) == ("stopped",) + (None,) * 3
    assert [event["pid"] for event in stage.llama.events("stop")] == [pid]
    assert stage.supervisor.stop_instance("one", wait=PATIENCE).status == "stopped"


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(make_stage: StageFactory) -> None:
    stage = make_stage(ignore_term=True, grace=0.2)
    pid = stage.run().pid
    assert stage.supervisor.stop_instance("one", wait=PATIENCE).status == "stopped"
    assert pid not in stage.processes()
    assert stage.get().exit_code == -signal.SIGKILL


@pytest.mark.parametrize("flags", ["--fake-fork", "--fake-daemon"])
def test_stop_ends_grandchildren_wherever_they_went(stage: Stage, flags: str) -> None:
    stage.run(**stage.fake(flags))
    stage.llama.wait_for("grandchild")
    assert len(stage.processes()) == 2
    stage.supervisor.stop_instance("one", wait=PATIENCE)
    eventually(lambda: not stage.processes())


@pytest.mark.parametrize("flags", ["--fake-load 60", "--fake-no-listen", "--fake-health-hang"])
def test_stop_interrupts_a_start(stage: Stage, flags: str) -> None:
    stage.create(**stage.fake(flags))
    stage.supervisor.start_instance("one")
    stage.llama.wait_for("start")
    assert stage.supervisor.stop_instance("one", wait=PATIENCE).status == "stopped"
    assert not stage.processes()


def test_stop_at_any_moment_of_a_start_leaves_nothing(stage: Stage) -> None:
    stage.create()
    for delay in (0, 0.001, 0.005, 0.01, 0.02, 0.04, 0.08):
        stage.supervisor.start_instance("one")
        time.sleep(delay)
        assert stage.supervisor.stop_instance("one", wait=PATIENCE).status == "stopped"
        assert not stage.processes()


def test_a_start_during_a_stop_begins_when_that_is_done(make_stage: StageFactory) -> None:
    stage = make_stage(ignore_term=True, grace=0.2)
    first = stage.run().pid
    stage.supervisor.stop_instance("one")
    second = stage.supervisor.start_instance("one", wait=PATIENCE)
    assert second.status == "running" and second.pid != first
    assert stage.processes() == [second.pid]


def test_restart_makes_a_new_process(stage: Stage) -> None:
    first = stage.run()
    second = stage.supervisor.restart_instance("one", wait=PATIENCE)
    assert second.status == "running" and second.pid != first.pid
    assert stage.processes() == [second.pid]


def test_restart_of_a_stopped_one_starts_it(stage: Stage) -> None:
    stage.create()
    assert stage.supervisor.restart_instance("one", wait=PATIENCE).status == "running"


def test_waiting_for_a_slow_start_ends_in_time_and_the_start_goes_on(stage: Stage) -> None:
    stage.llama.loading.touch()
    stage.create()
    with pytest.raises(StartTimeout, match="not ready after"):
        stage.supervisor.start_instance("one", wait=0.05)
    stage.llama.loading.unlink()
    assert stage.until("running").restarts == 0


def test_deleting_removes_it_with_its_logs(stage: Stage) -> None:
    stage.run()
    with pytest.raises(InstanceRunning):
        stage.supervisor.delete("one")
    stage.supervisor.stop_instance("one", wait=PATIENCE)
    assert (stage.config.instances.logs_dir / "one.log").exists()
    stage.supervisor.delete("one")
    assert list(stage.config.instances.logs_dir.iterdir()) == []
    for ask in (stage.supervisor.get, stage.supervisor.delete, stage.supervisor.logs):
        with pytest.raises(InstanceNotFound):
            ask("one")


def test_a_number_never_comes_again(stage: Stage) -> None:
    first = stage.create("one").id
    second = stage.create("two").id
    stage.supervisor.delete("two")
    third = stage.create("two").id
    stage.supervisor.delete("two")
    stage.supervisor.delete("one")
    assert first < second < third < stage.create("one").id


def test_names_are_unique_and_checked(stage: Stage) -> None:
    stage.create()
    with pytest.raises(InstanceExists):
        stage.create()
    with pytest.raises(InvalidInstanceName):
        stage.create("../x")


def test_max_instances_bounds_how_many_exist(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.max_instances": 1})
    stage.create()
    with pytest.raises(MaxInstancesReached, match="already 1"):
        stage.create("two")


def test_an_alias_finds_the_instance_and_belongs_to_one(stage: Stage) -> None:
    stage.create(aliases=["gpt", "x/y"])
    for name in ("one", "gpt", "x/y"):
        found = stage.supervisor.resolve_name(name)
        assert found is not None and found.name == "one"
    assert stage.supervisor.resolve_name("other") is None
    for alias in ("gpt", "one"):
        with pytest.raises(InvalidRequest, match="belongs to"):
            stage.create("two", aliases=[alias])
    with pytest.raises(InvalidRequest, match="is an alias"):
        stage.create("gpt")
    stage.supervisor.update("one", stage.options(aliases=["gpt"]))


def test_new_options_restart_what_runs(stage: Stage) -> None:
    first = stage.run()
    model = str(stage.llama.model)
    options = stage.options(backend_options={"model": model, "ctx_size": 1024})
    stage.supervisor.update("one", options)
    stage.llama.wait_for("start", 2)
    second = stage.supervisor.start_instance("one", wait=PATIENCE)
    assert second.pid != first.pid and second.options == options
    assert "1024" in stage.llama.events("start")[-1]["argv"]


def test_new_options_of_a_stopped_one_start_nothing(stage: Stage) -> None:
    stage.create()
    assert stage.supervisor.update("one", stage.options(idle_timeout=1)).status == "stopped"
    assert not stage.llama.events()


def test_the_version_changes_with_everything_that_happens(stage: Stage) -> None:
    seen = [stage.supervisor.version()]
    for step in (
        lambda: stage.create(),
        lambda: stage.supervisor.start_instance("one", wait=PATIENCE),
        lambda: stage.supervisor.stop_instance("one", wait=PATIENCE),
        lambda: stage.supervisor.delete("one"),
    ):
        step()
        seen.append(stage.supervisor.version())
    assert seen == sorted(set(seen))


def test_stopping_the_server_stops_every_instance_at_once(make_stage: StageFactory) -> None:
    stage = make_stage(ignore_term=True, grace=0.5)
    for name in ("a", "b", "c"):
        stage.run(name)
    assert stage.stop()
    assert not stage.processes()
    assert {each.status for each in stage.supervisor.instances()} == {"stopped"}
    with pytest.raises(ShuttingDown):
        stage.supervisor.start_instance("a")
    with pytest.raises(ShuttingDown):
        stage.supervisor.lease("a")


def test_stopping_the_server_is_bounded_whatever_the_instances_do(make_stage: StageFactory) -> None:
    stage = make_stage(ignore_term=True, grace=3600, drain=3600)
    stage.run()
    lease = stage.supervisor.lease("one")
    stage.supervisor.request_stop()
    began = time.monotonic()
    stage.supervisor.join(2.0)
    assert time.monotonic() - began < PATIENCE
    eventually(lambda: not stage.processes())
    lease.release()


def test_users_of_a_file_are_found_by_every_name_that_it_has(stage: Stage, tmp_path: Path) -> None:
    link = tmp_path / "link.gguf"
    os.link(stage.llama.model, link)
    assert stage.supervisor.users_of([link]) == []
    stage.create(**stage.fake("--fake-load 60"))
    stage.supervisor.start_instance("one")
    for path in (link, stage.llama.model):
        assert stage.supervisor.users_of([path]) == ["one"]
    assert stage.supervisor.users_of([tmp_path / "other.gguf"]) == []
    stage.supervisor.stop_instance("one", wait=PATIENCE)
    assert stage.supervisor.users_of([link]) == []


def test_an_instance_on_a_hub_repo_uses_the_repos_files(stage: Stage, tmp_path: Path) -> None:
    stage.run(backend_options={"hf_repo": "org/name:Q4"})
    hub = tmp_path / "models--org--name" / "snapshots" / "c" / "a.gguf"
    assert stage.supervisor.users_of([hub]) == ["one"]
    assert stage.supervisor.users_of([tmp_path / "org_name_a.gguf"]) == ["one"]
    assert stage.supervisor.users_of([tmp_path / "models--org--name2" / "a.gguf"]) == []
