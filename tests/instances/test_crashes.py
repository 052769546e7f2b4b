"""What happens when an instance ends unasked, cannot start, or is pretended to be another."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamactl.errors import StartFailed, StartTimeout
from llamactl.instances import ports
from tests.fakes.llama import FakeLlama
from tests.instances.conftest import PATIENCE, Stage, StageFactory, eventually


def kill(stage: Stage, number: int = signal.SIGSEGV, name: str = "one") -> int:
    pid = stage.get(name).pid
    assert pid is not None
    os.kill(pid, number)
    return pid


def test_a_crash_is_followed_by_a_restart(stage: Stage) -> None:
    stage.run(restart_delay=0)
    first = kill(stage)
    stage.llama.wait_for("listening", 2)
    again = stage.until("running")
    assert again.pid != first and again.restarts == 1
    assert stage.processes() == [again.pid]


def test_restarts_in_a_row_are_limited_and_the_failure_says_why(stage: Stage) -> None:
    stage.create(
        **stage.fake("--fake-exit-code", "3", "--fake-exit-after", "0"),
        restart_delay=0.01,
        max_restarts=2,
    )
    with pytest.raises(StartFailed, match="exit code 3") as caught:
        stage.supervisor.start_instance("one", wait=PATIENCE)
    failed = stage.get()
    assert (failed.status, failed.exit_code, failed.restarts) == ("failed", 3, 3)
    assert len(stage.llama.events("start")) == 3
    assert "3 times in a row" in caught.value.message
    assert any("fake" in line for line in caught.value.log_lines)


def test_the_pauses_between_restarts_grow(stage: Stage) -> None:
    stage.create(
        **stage.fake("--fake-exit-after 0", "--fake-exit-code 1"),
        restart_delay=0.1,
        max_restarts=3,
    )
    stage.supervisor.start_instance("one")
    stage.until("failed")
    times = [event["at"] for event in stage.llama.events("start")]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[0] >= 0.1 and pauses[1] >= 0.2 and pauses[2] >= 0.4


def test_without_auto_restart_one_crash_is_a_failure(stage: Stage) -> None:
    stage.run(auto_restart=False)
    kill(stage)
    failed = stage.until("failed")
    assert failed.exit_code == -signal.SIGSEGV and "SIGSEGV" in (failed.error or "")
    assert (failed.pid, failed.port, failed.health) == (None, None, None)


def test_a_stable_life_forgets_the_crashes_before_it(make_stage: StageFactory) -> None:
    stage = make_stage(stable=0.0)
    stage.run(restart_delay=0, max_restarts=1)
    for count in range(2, 6):
        kill(stage)
        stage.llama.wait_for("listening", count)
        assert stage.until("running").restarts == 1


def test_an_end_with_zero_that_nobody_asked_for_is_a_crash(stage: Stage) -> None:
    stage.run(auto_restart=False)
    kill(stage, signal.SIGTERM)
    failed = stage.until("failed")
    assert failed.exit_code == 0 and "exit code 0" in (failed.error or "")


def test_a_stop_during_the_pause_before_a_restart_is_the_end_of_it(
    make_stage: StageFactory,
) -> None:
    stage = make_stage(longest_backoff=3600)
    stage.run(restart_delay=3600)
    kill(stage)
    stage.until("restarting")
    assert stage.supervisor.stop_instance("one", wait=PATIENCE).status == "stopped"
    assert len(stage.llama.events("start")) == 1


def test_who_waits_for_one_that_pauses_is_told_why_it_ended(make_stage: StageFactory) -> None:
    stage = make_stage(longest_backoff=3600)
    stage.run(restart_delay=3600)
    kill(stage)
    stage.until("restarting")
    with pytest.raises(StartTimeout) as caught:
        stage.supervisor.lease("one", timeout=0.1)
    assert "crashed" in caught.value.details and "After a pause" in caught.value.details


def test_a_start_during_the_pause_ends_it(make_stage: StageFactory) -> None:
    stage = make_stage(longest_backoff=3600)
    stage.run(restart_delay=3600)
    kill(stage)
    stage.until("restarting")
    assert stage.supervisor.start_instance("one", wait=PATIENCE).restarts == 0


def test_a_reason_that_a_restart_cannot_mend_fails_at_once(stage: Stage) -> None:
    stage.create(**stage.fake("--fake-fail", "'error: invalid argument: --foo'"), restart_delay=0)
    with pytest.raises(StartFailed, match="does not know the flag --foo"):
        stage.supervisor.start_instance("one", wait=PATIENCE)
    assert len(stage.llama.events("start")) == 1


def test_a_start_after_a_failure_clears_it(stage: Stage) -> None:
    stage.run(auto_restart=False)
    kill(stage)
    stage.until("failed")
    again = stage.supervisor.start_instance("one", wait=PATIENCE)
    assert (again.status, again.error, again.exit_code, again.restarts) == (
        "running",
        None,
        None,
        0,
    )


def test_a_process_that_ignored_sigterm_once_is_killed_again_after_a_restart(
    make_stage: StageFactory,
) -> None:
    stage = make_stage(ignore_term=True, grace=0.2)
    stage.run(restart_delay=0)
    kill(stage, signal.SIGKILL)
    stage.llama.wait_for("listening", 2)
    stage.until("running")
    port = stage.get().port
    assert stage.supervisor.stop_instance("one", wait=PATIENCE).status == "stopped"
    assert not stage.processes()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_a_load_that_makes_no_progress_is_given_up(make_stage: StageFactory) -> None:
    stage = make_stage(load_patience=0.3, no_listen=True)
    stage.create(auto_restart=False)
    with pytest.raises(StartFailed, match="no progress"):
        stage.supervisor.start_instance("one", wait=PATIENCE)
    assert not stage.processes()


def test_a_long_load_is_waited_for_as_long_as_it_says_something(make_stage: StageFactory) -> None:
    # The fake writes a line for every question, as a loading llama-server writes its progress.
    stage = make_stage(load_patience=3.0, load=4.0)
    assert stage.run().restarts == 0


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a llama-server of somebody else's, which came just after the port was probed."""
    monkeypatch.setattr(ports, "_is_free", lambda _host, _port: True)
    fake = FakeLlama(tmp_path / "stranger")
    process = subprocess.Popen([*fake.argv, "--port", "0"], stderr=subprocess.DEVNULL)
    yield int(fake.wait_for("listening")[0]["port"])
    process.kill()
    process.wait()


def test_a_port_that_a_stranger_took_is_exchanged_for_another(
    make_stage: StageFactory, stranger: int
) -> None:
    stage = make_stage({"instances.port_range": f"{stranger}-{stranger + 9}"})
    running = stage.run()
    assert running.port != stranger and running.restarts == 0
    assert len(stage.llama.events("start")) >= 2


def test_a_stranger_that_answers_on_the_port_is_not_taken_for_ours(
    make_stage: StageFactory, stranger: int
) -> None:
    stage = make_stage({"instances.port_range": f"{stranger}-{stranger}"}, no_listen=True)
    stage.create()
    with pytest.raises(StartTimeout):
        stage.supervisor.start_instance("one", wait=0.5)
    assert (stage.get().status, stage.get().port) == ("starting", stranger)


def test_health_is_looked_at_and_never_a_reason_to_kill(make_stage: StageFactory) -> None:
    stage = make_stage(health_interval=0.02, health_answer=0.05)
    pid = stage.run().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: stage.get().health == "unresponsive")
    with stage.supervisor.lease("one"):
        eventually(lambda: stage.get().health == "busy")
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: stage.get().health == "ok")
    assert stage.get().pid == pid


def test_many_lives_leave_nothing_behind(stage: Stage) -> None:
    """Descriptors and threads are compared by the fixture; ports and records here."""
    stage.create(**stage.fake("--fake-exit-after 0"), restart_delay=0, max_restarts=14)
    stage.supervisor.start_instance("one")
    stage.until("failed")
    assert len(stage.llama.events("start")) == 15
    assert stage.database.read("SELECT * FROM runs") == []
    assert stage.supervisor._shared.ports._reserved == set()
