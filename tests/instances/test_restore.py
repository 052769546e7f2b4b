"""What outlives the server: which instances ran, and what it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamactl.errors import StartFailed
from llamactl.instances import processes
from llamactl.models.fit import Machine, Memory
from tests.instances.conftest import FIRST_PORT, PATIENCE, Stage, StageFactory, eventually
from tests.ports import instance_ports


def test_what_ran_when_the_server_went_down_runs_again(make_stage: StageFactory) -> None:
    first = make_stage()
    for name in ("ran", "stopped", "never"):
        first.create(name, aliases=[f"{name}-alias"])
    for name in ("ran", "stopped"):
        first.supervisor.start_instance(name, wait=PATIENCE)
    first.supervisor.stop_instance("stopped", wait=PATIENCE)
    assert first.stop()
    second = make_stage()
    assert second.until("running", "ran").options.aliases == ("ran-alias",)
    assert second.get("stopped").status == "stopped" == second.get("never").status
    assert second.get("ran").id == first.get("ran").id
    assert second.get("ran").created == first.get("ran").created


def test_what_was_idle_or_has_failed_stays_down(make_stage: StageFactory) -> None:
    first = make_stage()
    first.run("idle", idle_timeout=0.1 / 60)
    first.create("bad", backend_options={"model": "/nowhere.gguf"})
    with pytest.raises(StartFailed):
        first.supervisor.start_instance("bad", wait=PATIENCE)
    first.until("stopped", "idle")
    assert first.stop()
    second = make_stage()
    assert {each.status for each in second.supervisor.instances()} == {"stopped"}


def test_what_a_person_stopped_while_it_paused_stays_down(make_stage: StageFactory) -> None:
    first = make_stage(longest_backoff=3600)
    first.create(**first.fake("--fake-exit-after", "0"), restart_delay=3600)
    first.supervisor.start_instance("one")
    first.until("restarting")
    first.supervisor.stop_instance("one", wait=PATIENCE)
    eventually(lambda: not first.database.read("SELECT * FROM instances WHERE wanted"))
    assert first.stop()


def test_what_paused_before_a_restart_runs_again_after_the_servers_end(
    make_stage: StageFactory,
) -> None:
    first = make_stage(longest_backoff=3600)
    first.create(**first.fake("--fake-exit-after", "0"), restart_delay=3600)
    first.supervisor.start_instance("one")
    first.until("restarting")
    assert first.stop()
    assert first.database.read("SELECT * FROM instances WHERE wanted")


def test_two_are_loaded_at_once_after_the_server_came_up(make_stage: StageFactory) -> None:
    first = make_stage()
    names = [f"i{number}" for number in range(5)]
    for name in names:
        first.run(name)
    assert first.stop()
    second = make_stage(load=0.2)
    loading: list[int] = []

    def all_run() -> bool:
        statuses = [each.status for each in second.supervisor.instances()]
        loading.append(statuses.count("starting"))
        return set(statuses) == {"running"}

    eventually(all_run)
    assert max(loading) == 2


def test_more_than_may_run_stay_down(make_stage: StageFactory) -> None:
    first = make_stage()
    for name in ("a", "b", "c"):
        first.run(name)
    assert first.stop()
    second = make_stage({"instances.max_running_instances": 2})
    eventually(lambda: [e.status for e in second.supervisor.instances()].count("running") == 2)
    assert len(second.processes()) == 2


def test_why_one_stays_down_is_said_until_somebody_starts_or_stops_it(
    make_stage: StageFactory, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_stage()
    for name in ("a", "b", "c"):
        first.run(name)
    assert first.stop()
    second = make_stage({"instances.max_running_instances": 1})
    told = eventually(lambda: all(second.get(name).error for name in ("b", "c")))
    assert told and second.until("running", "a").error is None
    assert (second.get("b").error or "").startswith(
        "It was not started again with the server: 1 instance runs already. Stop one, or raise"
    )
    assert "b stays down: 1 instance runs already" in caplog.text
    second.supervisor.stop_instance("a", wait=PATIENCE)
    assert second.supervisor.start_instance("b", wait=PATIENCE).error is None
    assert second.supervisor.stop_instance("c").error is None
    assert second.stop()
    third = make_stage()
    third.until("running", "b")
    assert {third.get(name).status for name in ("a", "c")} == {"stopped"}


def test_the_last_used_comes_up_first_and_stays_the_last_used(make_stage: StageFactory) -> None:
    first = make_stage()
    names = ("a", "b", "c", "d")
    for name in names:
        first.run(name)
    for name in ("c", "d", "a", "b"):
        first.supervisor.lease(name).release()
    assert first.stop()
    used = {name: first.get(name).last_used for name in names}
    second = make_stage({"instances.max_running_instances": 3})
    for name in ("a", "b", "d"):
        second.until("running", name)
    eventually(lambda: second.get("c").error)
    assert {name: second.get(name).last_used for name in names} == used
    second.supervisor.lease("c").release()
    assert second.until("stopped", "d").error is None


def test_one_that_was_never_asked_makes_room_before_one_that_was(make_stage: StageFactory) -> None:
    first = make_stage()
    for name in ("long-ago", "never"):
        first.run(name)
    first.supervisor.lease("long-ago").release()
    assert first.stop()
    with first.database.write() as cursor:  # before the machine came up
        cursor.execute("UPDATE instances SET last_used_at = 1e9 WHERE last_used_at IS NOT NULL")
    second = make_stage({"instances.max_running_instances": 2})
    for name in ("long-ago", "never"):
        second.until("running", name)
    second.create("newcomer")
    second.supervisor.lease("newcomer").release()
    assert second.get("never").status == "stopped"
    assert second.get("long-ago").status == "running"


def test_when_it_was_used_outlives_a_kill_of_the_server(make_stage: StageFactory) -> None:
    stage = make_stage(health_interval=0.02)
    stage.run()
    stage.supervisor.lease("one").release()
    used = stage.get().last_used
    rows = "SELECT last_used_at FROM instances"
    eventually(lambda: stage.database.read(rows)[0]["last_used_at"] == used)


def test_one_that_was_never_asked_is_idle_from_its_own_start(make_stage: StageFactory) -> None:
    first = make_stage()
    first.run(idle_timeout=30)
    first.supervisor.lease("one").release()
    assert first.stop()
    with first.database.write() as cursor:
        cursor.execute("UPDATE instances SET last_used_at = last_used_at - 7200")
    second = make_stage(health_interval=0.02)
    second.until("running")
    instance = second.supervisor._registry.find("one")
    assert instance.idle_at(time.monotonic()) > time.monotonic() + 1700


@pytest.mark.parametrize(("fails_at", "down"), [(1, set()), (2, {"odd"})])
def test_a_bug_that_one_meets_keeps_no_other_down(
    make_stage: StageFactory, caplog: pytest.LogCaptureFixture, fails_at: int, down: set[str]
) -> None:
    first = make_stage()
    for name in ("odd", "even"):
        first.run(name)
    first.supervisor.lease("odd").release()
    assert first.stop()
    looks: list[float] = []

    def read(within: float) -> Machine:
        looks.append(within)
        if len(looks) == fails_at:  # the first one is that of the server's start
            raise ValueError("nobody thought of that")
        return Machine(Memory(10**12, 10**12))

    second = make_stage(machine=read)
    second.until("running", "even")
    for name in {"odd"} - down:
        second.until("running", name)
    assert {each.name for each in second.supervisor.instances() if each.status == "stopped"} == down
    assert "nobody thought of that" in caplog.text


def test_options_that_cannot_be_read_any_more_are_kept_and_shown(make_stage: StageFactory) -> None:
    first = make_stage()
    first.create()
    with first.database.write() as cursor:
        odd = json.dumps({"backend_options": {"flag_of_tomorrow": 1}})
        cursor.execute("UPDATE instances SET options = ?", (odd,))
    first.stop()
    second = make_stage()
    assert "flag_of_tomorrow" in (second.get().error or "")
    with pytest.raises(StartFailed, match="flag_of_tomorrow"):
        second.supervisor.start_instance("one", wait=PATIENCE)
    second.supervisor.update("one", second.options())
    assert second.supervisor.start_instance("one", wait=PATIENCE).status == "running"


def test_logs_are_kept_over_a_restart_of_the_server(make_stage: StageFactory) -> None:
    first = make_stage()
    first.run(**first.fake("--fake-print", "from-the-first-life"))
    first.stop()
    assert b"from-the-first-life" in make_stage().supervisor.logs("one")


HOST = """
import sys, time
from pathlib import Path
from llamactl.config import load_config
from llamactl.database import Database
from llamactl.instances.options import Options
from llamactl.instances.supervisor import Supervisor
import json
settings, model, daemon = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]
config = load_config(environ={"HOME": settings["data_dir"]}, overrides=settings)
database = Database(config.data_dir / "llamactl.db"); database.open()
supervisor = Supervisor(config, database, lambda reference: None)
supervisor.start()
raw = {"backend_options": {"model": model}, "environment": {"FAKE_LLAMA": " ".join(daemon)}}
supervisor.create("one", Options.from_json(raw, config))
supervisor.start_instance("one", wait=60)
print("running", flush=True)
time.sleep(600)
"""


def start_host(stage: Stage, data_dir: Path, *flags: str) -> subprocess.Popen[bytes]:
    settings = {
        **stage.llama.settings,
        "data_dir": str(data_dir),
        "instances.port_range": instance_ports(FIRST_PORT + 60, FIRST_PORT + 89),
    }
    argv = [sys.executable, "-c", HOST, json.dumps(settings), str(stage.llama.model), *flags]
    host = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert host.stdout is not None and host.stdout.readline() == b"running\n"
    return host


def test_sigkill_of_the_server_leaves_no_child(make_stage: StageFactory, tmp_path: Path) -> None:
    stage = make_stage(ignore_term=True)
    host = start_host(stage, tmp_path / "killed")
    pid = stage.llama.events("listening")[0]["pid"]
    host.kill()
    host.communicate()
    eventually(lambda: processes.start_ticks(pid) is None)


def test_what_a_killed_server_left_is_ended_at_the_next_start(make_stage: StageFactory) -> None:
    stage = make_stage()
    assert stage.stop()
    stage.database.close()
    host = start_host(stage, stage.config.data_dir, "--fake-daemon")
    grandchild = stage.llama.events("grandchild")[0]["pid"]
    host.send_signal(signal.SIGKILL)
    host.communicate()
    eventually(lambda: stage.processes() == [grandchild])
    os.kill(grandchild, 0)
    second = make_stage()
    assert processes.start_ticks(grandchild) is None
    assert second.until("running").status == "running"
    assert len(second.database.read("SELECT * FROM runs")) == 1
