"""What a machine does to a supervisor: wrappers, limits, clocks, stops of the server itself."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llamactl.errors import StartFailed
from llamactl.instances import processes, spawner
from llamactl.instances.spawner import LocalProcess, Order
from tests.instances.asking import serving
from tests.instances.conftest import PATIENCE, Stage, StageFactory, eventually

#: What people write around llama-server: it stays, and its child is the server.
WRAPPER = """#!/bin/sh
echo wrapped
"$@" &
wait $!
"""
ALLOWED = {"security.allow_command_override": True}


@pytest.fixture
def wrapped(make_stage: StageFactory, tmp_path: Path) -> Stage:
    """A supervisor and an instance whose program is a script around the fake."""
    script = tmp_path / "wrapper"
    script.write_text(WRAPPER)
    script.chmod(0o755)
    stage = make_stage(ALLOWED, ignore_term=True)
    stage.create(command_override=" ".join([str(script), *stage.llama.argv]), restart_delay=0)
    return stage


def server_in(stage: Stage) -> int:
    """The process of the server itself, the last one that came up."""
    return int(stage.llama.events("listening")[-1]["pid"])


def test_a_server_in_a_wrapper_script_runs_and_is_stopped_with_it(wrapped: Stage) -> None:
    running = wrapped.supervisor.start_instance("one", wait=PATIENCE)
    assert running.pid != server_in(wrapped)
    eventually(lambda: b"wrapped" in wrapped.supervisor.logs("one"))
    wrapped.supervisor.stop_instance("one", wait=PATIENCE)
    assert not wrapped.processes()


def test_a_wrapper_that_is_killed_leaves_no_server(wrapped: Stage) -> None:
    first = wrapped.supervisor.start_instance("one", wait=PATIENCE)
    old = server_in(wrapped)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    wrapped.llama.wait_for("listening", 2)
    assert processes.start_ticks(old) is None
    assert wrapped.until("running").restarts == 1


def test_a_server_that_is_killed_in_its_wrapper_is_restarted(wrapped: Stage) -> None:
    wrapped.supervisor.start_instance("one", wait=PATIENCE)
    os.kill(server_in(wrapped), signal.SIGKILL)
    wrapped.llama.wait_for("listening", 2)
    assert wrapped.until("running").restarts == 1


@pytest.mark.parametrize("kind", ["no interpreter", "a folder", "not executable"])
def test_a_program_that_is_none_fails_once_with_the_reason(
    make_stage: StageFactory, tmp_path: Path, kind: str
) -> None:
    program = tmp_path / "program"
    if kind == "a folder":
        program.mkdir()
    else:
        program.write_bytes(b"\x7fELF no program")
        program.chmod(0o755 if kind == "no interpreter" else 0o644)
    stage = make_stage(ALLOWED)
    stage.create(command_override=str(program), restart_delay=0)
    with pytest.raises(StartFailed, match=str(program)):
        stage.supervisor.start_instance("one", wait=PATIENCE)
    assert stage.get().restarts <= 1


def test_two_hundred_starts_and_stops_grow_nothing(stage: Stage) -> None:
    stage.create()
    before = None
    for number in range(200):
        stage.supervisor.start_instance("one", wait=PATIENCE if number % 20 == 0 else None)
        stage.supervisor.stop_instance("one", wait=PATIENCE)
        if number == 40:
            before = footprint()
    assert before is not None
    eventually(lambda: footprint()[:2] <= before[:2], "threads and descriptors")
    assert footprint()[2] - before[2] < 10_000_000
    assert not children()


def footprint() -> tuple[int, int, int]:
    """Threads, descriptors, bytes of resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return threading.active_count(), descriptors, pages * os.sysconf("SC_PAGE_SIZE")


def children() -> list[str]:
    """Children of this process, zombies included."""
    own = str(os.getpid())
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == own:
            found.append(stat.read_text())
    return [each for each in found if "python" not in each]


def test_a_system_that_makes_no_process_is_told_and_outlived(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_order: Order) -> LocalProcess:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    stage.create()
    with monkeypatch.context() as patched:
        patched.setattr(spawner, "_spawn", refuse)
        with pytest.raises(StartFailed, match="no process can be made"):
            stage.supervisor.start_instance("one", wait=PATIENCE)
    assert stage.supervisor.start_instance("one", wait=PATIENCE).status == "running"


def test_without_descriptors_a_start_is_refused_and_the_next_one_works(
    stage: Stage,
) -> None:
    stage.create(restart_delay=0, max_restarts=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open("/dev/null", os.O_RDONLY)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, hard))
        with pytest.raises(StartFailed, match=r"files|process|Too many"):
            stage.supervisor.start_instance("one", wait=PATIENCE)
        assert stage.get().status == "failed"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(held[0])
    assert stage.supervisor.start_instance("one", wait=PATIENCE).status == "running"


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_moves_no_timer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    now = time.time
    pid = stage.run(idle_timeout=10).pid
    stage.create("waiting", **stage.fake("--fake-fail 'no reason'"), restart_delay=3600)
    stage.supervisor.start_instance("waiting")
    stage.until("restarting", "waiting")
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    with serving(stage, {"tokens": 10_000, "gap": 0.01}):
        stage.llama.wait_for("request", 3)
    looked = stage.supervisor.version()
    time.sleep(0.5)
    assert (stage.get().status, stage.get().pid, stage.get().health) == ("running", pid, "ok")
    assert stage.get("waiting").status == "restarting"
    assert stage.supervisor.version() == looked


#: A supervisor with a short health interval, and one instance; it says what became of it.
STOPPED_HOST = """
import json, sys
from llamactl.config import load_config
from llamactl.database import Database
from llamactl.instances.options import Options
from llamactl.instances.supervisor import Supervisor, Timing
settings, model = json.loads(sys.argv[1]), sys.argv[2]
config = load_config(environ={"HOME": settings["data_dir"]}, overrides=settings)
database = Database(config.data_dir / "llamactl.db"); database.open()
timing = Timing(health_interval=0.1, health_answer=0.5)
supervisor = Supervisor(config, database, lambda reference: None, timing=timing)
supervisor.start()
raw = {"backend_options": {"model": model}}
supervisor.create("one", Options.from_json(raw, config))
first = supervisor.start_instance("one", wait=60)
print("running", flush=True)
sys.stdin.readline()
with supervisor.lease("one") as lease:
    last = supervisor.get("one")
print(last.status, last.pid == first.pid, last.restarts, flush=True)
supervisor.request_stop()
supervisor.join(20)
"""


def test_a_server_that_was_stopped_for_a_while_goes_on_with_its_instances(
    make_stage: StageFactory, tmp_path: Path
) -> None:
    stage = make_stage()
    _, last = stage.config.instances.port_range
    settings = {
        **stage.llama.settings,
        "data_dir": str(tmp_path / "host"),
        "instances.port_range": f"{last + 1}-{last + 30}",
        "instances.wedged_after": 1.0,
        "instances.restart_wedged": True,
    }
    argv = [sys.executable, "-c", STOPPED_HOST, json.dumps(settings), str(stage.llama.model)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, text=True, stdin=pipe, stdout=pipe) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "running\n"
        host.send_signal(signal.SIGSTOP)
        time.sleep(2.0)
        host.send_signal(signal.SIGCONT)
        told, _ = host.communicate("\n", timeout=PATIENCE)
    assert told == "running True 0\n"
    assert len(stage.llama.events("start")) == 1
