"""The spawner's promise: nothing that it makes outlives the process or the thread that made it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamactl.instances import processes
from llamactl.instances.logs import InstanceLog
from llamactl.instances.spawner import SHIM, LocalSpawner, Order, Process
from llamactl.instances.watcher import Watcher
from tests.fakes.llama import FakeLlama
from tests.instances.conftest import eventually

#: Whoever reaps ends every process with its mark, those of tests in other processes among them.
MARK = f"{os.getpid():016x}:test"


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    return processes.start_ticks(pid) is not None


@pytest.fixture
def spawner() -> Iterator[LocalSpawner]:
    spawner = LocalSpawner()
    spawner.start()
    yield spawner
    spawner.stop()
    eventually(lambda: not list(processes.with_mark(MARK)))


def open_in(pid: int) -> list[str]:
    """The descriptors that a process has open."""
    return sorted(entry.name for entry in Path(f"/proc/{pid}/fd").iterdir())


def order(*argv: str, mark: str = MARK, **environment: str) -> Order:
    return Order(argv, {"PATH": os.environ["PATH"], **environment}, Path("/"), mark)


def finish(process: Process) -> int:
    code = process.reap()
    process.close()
    return code


def fake(llama: FakeLlama, **more: str) -> Order:
    return order(*llama.argv, "--port", "0", **more)


def test_a_process_leads_its_own_session_with_nothing_on_its_input(
    spawner: LocalSpawner, tmp_path: Path
) -> None:
    llama = FakeLlama(tmp_path)
    process = spawner.spawn(fake(llama, SECRET="x"))
    start = llama.wait_for("start")[0]
    assert start["pid"] == process.pid == start["pgid"] == start["sid"]
    assert start["ppid"] == os.getpid()
    assert start["stdin"] == "/dev/null"
    assert start["env"]["SECRET"] == "x" and start["env"]["LLAMACTL_RUN"] == MARK
    assert start["cwd"] == "/"
    finish(process)


def test_a_child_has_no_core_file_and_no_way_to_new_privileges(spawner: LocalSpawner) -> None:
    process = spawner.spawn(order("sleep", "60"))
    eventually(lambda: b"sleep" in Path(f"/proc/{process.pid}/cmdline").read_bytes()[:5])
    status = Path(f"/proc/{process.pid}/status").read_text()
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert "NoNewPrivs:\t1" in status
    assert next(line for line in limits.splitlines() if "core" in line).split()[4:6] == ["0", "0"]
    finish(process)


def test_a_child_inherits_no_descriptor_of_ours(spawner: LocalSpawner, tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(held, True)
    process = spawner.spawn(order("sleep", "60"))
    eventually(lambda: b"sleep" in Path(f"/proc/{process.pid}/cmdline").read_bytes()[:5])
    # A program opens and closes files of its own while it comes up.
    eventually(lambda: open_in(process.pid) == ["0", "1", "2"])
    finish(process)
    os.close(held)


def test_a_program_that_cannot_be_run_says_why(spawner: LocalSpawner, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    for argv, reason in (("/nowhere", "No such file"), (str(plain), "Permission denied")):
        process = spawner.spawn(order(argv))
        eventually(process.ended)
        assert f"llamactl: cannot run {argv}: {reason}" in os.read(process.output, 4096).decode()
        assert finish(process) == 127


def test_the_exit_code_tells_a_signal(spawner: LocalSpawner) -> None:
    process = spawner.spawn(order("sleep", "60"))
    process.signal(signal.SIGSEGV)
    eventually(process.ended)
    assert finish(process) == -signal.SIGSEGV
    process.signal(signal.SIGKILL)  # to a reaped process: nothing


@pytest.mark.parametrize("flags", [{"fork": True}, {"daemon": True}])
def test_reaping_ends_grandchildren_also_those_that_left_the_group(
    spawner: LocalSpawner, tmp_path: Path, flags: dict[str, Any]
) -> None:
    llama = FakeLlama(tmp_path, **flags)
    process = spawner.spawn(fake(llama))
    grandchild = llama.wait_for("grandchild")[0]["pid"]
    assert alive(grandchild)
    os.kill(process.pid, signal.SIGKILL)
    eventually(process.ended)
    finish(process)
    eventually(lambda: not alive(grandchild))


def test_the_end_of_the_spawners_thread_ends_its_children(tmp_path: Path) -> None:
    spawner = LocalSpawner()
    spawner.start()
    llama = FakeLlama(tmp_path, ignore_term=True)
    process = spawner.spawn(fake(llama))
    llama.wait_for("listening")
    spawner.stop()
    eventually(lambda: not alive(process.pid))
    finish(process)


def test_the_end_of_a_thread_that_asked_does_no_harm(spawner: LocalSpawner, tmp_path: Path) -> None:
    llama = FakeLlama(tmp_path)
    made: list[Process] = []
    asker = threading.Thread(target=lambda: made.append(spawner.spawn(fake(llama))))
    asker.start()
    asker.join()
    llama.wait_for("listening")
    assert alive(made[0].pid)
    finish(made[0])


HOST = """
import sys, time
from pathlib import Path
from llamactl.instances.spawner import LocalSpawner, Order
spawner = LocalSpawner(); spawner.start()
for number in range(3):
    spawner.spawn(Order(sys.argv[2:], {}, Path("/"), sys.argv[1]))
print("made", flush=True); time.sleep(600)
"""


def test_sigkill_of_the_host_leaves_no_child(tmp_path: Path) -> None:
    llama = FakeLlama(tmp_path, ignore_term=True)
    mark = f"{os.getpid():016x}:host"
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, mark, *llama.argv, "--port", "0"], stdout=subprocess.PIPE
    )
    children = [event["pid"] for event in llama.wait_for("listening", 3)]
    assert all(alive(pid) for pid in children)
    host.kill()
    host.communicate()
    eventually(lambda: not any(alive(pid) for pid in children))


def test_a_host_that_dies_while_it_makes_a_child_leaves_none(tmp_path: Path) -> None:
    """The window between the making and the binding is closed by a second look at the parent."""
    llama = FakeLlama(tmp_path)
    mark = f"{os.getpid():016x}:race"
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02):
        host = subprocess.Popen(
            [sys.executable, "-c", HOST, mark, *llama.argv, "--port", "0"], stdout=subprocess.PIPE
        )
        assert host.stdout is not None
        host.stdout.readline()
        time.sleep(delay)
        host.kill()
        host.communicate()
        eventually(lambda: not list(processes.with_mark(mark)))


class Watching:
    """A watcher with a log, and the ends that it announced."""

    def __init__(self, tmp_path: Path, spawner: LocalSpawner) -> None:
        self.watcher = Watcher()
        self.watcher.start()
        self.log = InstanceLog(tmp_path / "one.log", max_size=10**9, backups=1)
        self.ends: list[int] = []
        self._spawner = spawner

    def run(self, made: Order) -> Process:
        process = self._spawner.spawn(made)
        self.watcher.watch(process, self.log, self.ends.append)
        return process

    def end(self) -> int:
        eventually(lambda: self.ends, "the end")
        return self.ends[0]


@pytest.fixture
def watching(tmp_path: Path, spawner: LocalSpawner) -> Iterator[Watching]:
    watching = Watching(tmp_path, spawner)
    yield watching
    watching.watcher.stop()
    watching.log.close()


def test_the_last_words_are_in_the_log_before_the_end_is_announced(watching: Watching) -> None:
    script = "import sys; sys.stdout.write('x' * 300000 + 'last words'); sys.exit(3)"
    watching.run(order(sys.executable, "-c", script))
    assert watching.end() == 3
    assert watching.log.written == 300_010
    assert watching.log.last_lines(1, longest=10**6)[0].endswith("last words")


def test_both_outputs_arrive_in_their_order(watching: Watching) -> None:
    watching.run(order("sh", "-c", "echo one; echo two >&2; echo three"))
    assert watching.end() == 0
    assert watching.log.tail(None) == b"one\ntwo\nthree\n"


def test_megabytes_without_a_newline_neither_block_nor_grow(
    watching: Watching, tmp_path: Path
) -> None:
    llama = FakeLlama(tmp_path / "fake", spam=30_000_000)
    process = watching.run(fake(llama))
    llama.wait_for("listening")
    eventually(lambda: watching.log.written >= 30_000_000)
    assert alive(process.pid)
    process.signal(signal.SIGTERM)
    assert watching.end() == 0


def test_a_grandchild_that_holds_the_pipe_does_not_delay_the_end_for_long(
    watching: Watching, tmp_path: Path
) -> None:
    llama = FakeLlama(tmp_path / "fake", daemon=True, exit_after=0.1, exit_code=5)
    watching.run(fake(llama))
    assert watching.end() == 5
    grandchild = llama.events("grandchild")[0]["pid"]
    eventually(lambda: not alive(grandchild))


def test_many_processes_share_the_one_thread(watching: Watching) -> None:
    before = threading.active_count()
    for number in range(20):
        mark = f"{MARK}{number:02}"
        watching.run(order("sh", "-c", f"echo {number}; exit {number}", mark=mark))
    eventually(lambda: len(watching.ends) == 20)
    assert sorted(watching.ends) == list(range(20))
    assert threading.active_count() <= before


#: Runs the shim as a system does that has no way to bind a child to its parent.
ELSEWHERE = """
import runpy, sys
sys.platform = "elsewhere"
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
GUARDED_HOST = """
import os, subprocess, sys, time
shim = [sys.executable, sys.argv[1], sys.argv[2], str(os.getpid())]
subprocess.Popen([*shim, *sys.argv[3:]], start_new_session=True)
time.sleep(600)
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> list[str]:
    script = tmp_path / "elsewhere.py"
    script.write_text(ELSEWHERE)
    return [str(script), str(SHIM)]


def test_where_the_kernel_does_not_bind_children_a_guard_ends_them(
    tmp_path: Path, elsewhere: list[str]
) -> None:
    llama = FakeLlama(tmp_path, ignore_term=True)
    argv = [sys.executable, "-c", GUARDED_HOST, *elsewhere, *llama.argv, "--port", "0"]
    host = subprocess.Popen(argv)
    child = llama.wait_for("listening")[0]["pid"]
    host.kill()
    host.wait()
    eventually(lambda: not alive(child))


def test_the_guard_goes_with_its_instance_and_holds_no_pipe(elsewhere: list[str]) -> None:
    argv = [sys.executable, *elsewhere, str(os.getpid()), "sh", "-c", "echo done"]
    done = subprocess.run(
        argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, b"done\n")
