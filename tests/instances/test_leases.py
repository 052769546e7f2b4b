"""How requests get a running instance, keep it, and what they are told when they cannot have it."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llamactl.errors import (
    InstanceNotFound,
    InstanceNotRunning,
    Interrupted,
    LlamactlError,
    ShuttingDown,
    StartFailed,
    StartTimeout,
)
from tests.instances.asking import ask
from tests.instances.conftest import PATIENCE, Stage, StageFactory, eventually

#: A thousandth of a minute and more: idle timeouts are in minutes.
MOMENT = 0.3 / 60


def test_a_lease_starts_a_stopped_instance_and_can_be_used_at_once(stage: Stage) -> None:
    stage.create()
    with stage.supervisor.lease("one") as lease:
        assert ask(lease) == 200
        assert (stage.get().status, stage.get().in_flight) == ("running", 1)
        assert lease.snapshot.port == lease.port
    assert stage.get().in_flight == 0


def test_a_lease_stamps_the_last_use_at_its_end(stage: Stage) -> None:
    stage.run()
    assert stage.get().last_used is None
    lease = stage.supervisor.lease("one")
    begun = stage.get().last_used
    time.sleep(0.01)
    lease.release()
    ended = stage.get().last_used
    assert begun is not None and ended is not None and time.time() >= ended > begun


def test_a_lease_that_is_given_back_twice_counts_once(stage: Stage) -> None:
    stage.run()
    first, second = stage.supervisor.lease("one"), stage.supervisor.lease("one")
    first.release()
    first.release()
    assert stage.get().in_flight == 1
    second.release()
    assert stage.get().in_flight == 0


def test_who_holds_a_lease_is_told_of_the_end_of_its_process(make_stage: StageFactory) -> None:
    stage = make_stage(drain=0.1)
    pid = stage.run(restart_delay=0).pid
    assert pid is not None
    with stage.supervisor.lease("one") as lease:
        assert lease.ended(0.0) is None
        os.kill(pid, signal.SIGKILL)
        ended = lease.ended(PATIENCE)
    assert ended is not None and ended.retry_after == 1.0 and "ended before" in ended.message
    stage.until("running")
    with stage.supervisor.lease("one") as lease:
        stage.supervisor.stop_instance("one", wait=PATIENCE)
        ended = lease.ended(PATIENCE)
        assert ended is not None and "it was stopped" in ended.message
    assert lease.ended(0.0) is None


def test_a_hundred_first_requests_make_one_process(make_stage: StageFactory) -> None:
    stage = make_stage(load=0.2)
    stage.create()

    def use(_: int) -> int:
        with stage.supervisor.lease("one") as lease:
            return lease.port

    with ThreadPoolExecutor(100) as pool:
        ports = set(pool.map(use, range(100)))
    assert len(ports) == 1
    assert len(stage.llama.events("start")) == 1
    assert stage.get().in_flight == 0


def test_an_unknown_instance_is_said_to_be(stage: Stage) -> None:
    with pytest.raises(InstanceNotFound):
        stage.supervisor.lease("none")


def test_without_on_demand_start_a_stopped_one_stays_stopped(stage: Stage) -> None:
    stage.create(on_demand_start=False)
    with pytest.raises(InstanceNotRunning, match="is stopped"):
        stage.supervisor.lease("one")
    assert not stage.llama.events()


def test_without_on_demand_start_one_that_is_coming_up_is_waited_for(stage: Stage) -> None:
    stage.create(on_demand_start=False)
    stage.supervisor.start_instance("one")
    stage.supervisor.lease("one").release()


def test_waiting_is_bounded_and_the_load_goes_on(stage: Stage) -> None:
    stage.llama.loading.touch()
    stage.create()
    with pytest.raises(StartTimeout) as caught:
        stage.supervisor.lease("one", timeout=0.05)
    assert caught.value.retry_after
    stage.llama.loading.unlink()
    stage.until("running")
    assert len(stage.llama.events("start")) == 1


def test_the_configured_time_bounds_the_waiting(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.on_demand_start_timeout": 0.1}, no_listen=True)
    stage.create()
    with pytest.raises(StartTimeout):
        stage.supervisor.lease("one")


def test_a_request_that_leaves_ends_its_waiting_and_not_the_start(stage: Stage) -> None:
    stage.llama.loading.touch()
    stage.create()
    left = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        leaver = pool.submit(stage.supervisor.lease, "one", cancelled=left.is_set)
        stayer = pool.submit(stage.supervisor.lease, "one")
        stage.llama.wait_for("start")
        left.set()
        with pytest.raises(Interrupted):
            leaver.result(PATIENCE)
        assert not stayer.done()
        stage.llama.loading.unlink()
        stayer.result(PATIENCE).release()
    assert len(stage.llama.events("start")) == 1


def test_all_who_wait_hear_of_the_failure(stage: Stage) -> None:
    failing = stage.fake(
        "--fake-listen-after", "0.2", "--fake-exit-after", "0.1", "--fake-exit-code", "7"
    )
    stage.create(**failing, auto_restart=False)

    def use(_: int) -> LlamactlError:
        with pytest.raises(StartFailed) as caught:
            stage.supervisor.lease("one")
        return caught.value

    with ThreadPoolExecutor(20) as pool:
        errors = list(pool.map(use, range(20)))
    assert {"exit code 7" in error.message for error in errors} == {True}
    assert len(stage.llama.events("start")) == 1


def test_a_failed_one_is_tried_again_only_after_its_pause(make_stage: StageFactory) -> None:
    stage = make_stage(longest_backoff=3600)
    stage.create(**stage.fake("--fake-fail", "gone"), auto_restart=False, restart_delay=3600)
    for _ in range(5):
        with pytest.raises(StartFailed) as caught:
            stage.supervisor.lease("one")
        assert caught.value.retry_after is not None and 3500 < caught.value.retry_after <= 3600
    assert len(stage.llama.events("start")) == 1


def test_after_the_pause_a_request_tries_again(make_stage: StageFactory) -> None:
    stage = make_stage(longest_backoff=0.1)
    stage.create(**stage.fake("--fake-fail", "gone"), auto_restart=False, restart_delay=0)
    with pytest.raises(StartFailed):
        stage.supervisor.lease("one")
    stage.supervisor._registry.find("one").retry_at = 0.0
    stage.supervisor.update("one", stage.options())
    stage.supervisor.lease("one").release()


def test_a_request_during_a_restart_waits_for_it(stage: Stage) -> None:
    stage.create(**stage.fake("--fake-load 0.2"), restart_delay=0.2)
    with stage.supervisor.lease("one") as lease:
        pid = lease.snapshot.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: stage.get().pid != pid, "its end")
    with stage.supervisor.lease("one") as lease:
        assert ask(lease) == 200


def test_a_person_who_stops_it_ends_the_waiting(stage: Stage) -> None:
    stage.create(**stage.fake("--fake-load 60"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stage.supervisor.lease, "one")
        stage.llama.wait_for("start")
        stage.supervisor.stop_instance("one", wait=PATIENCE)
        with pytest.raises(InstanceNotRunning, match="was stopped"):
            waiting.result(PATIENCE)
    assert stage.get().status == "stopped" and len(stage.llama.events("start")) == 1


def test_the_servers_end_ends_the_waiting(stage: Stage) -> None:
    stage.create(**stage.fake("--fake-load 60"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stage.supervisor.lease, "one")
        stage.llama.wait_for("start")
        stage.supervisor.request_stop()
        with pytest.raises(ShuttingDown):
            waiting.result(PATIENCE)


def test_a_stop_waits_for_requests_that_are_served_but_not_for_ever(
    make_stage: StageFactory,
) -> None:
    stage = make_stage(drain=3600)
    stage.run()
    lease = stage.supervisor.lease("one")
    stage.supervisor.stop_instance("one")
    assert ask(lease) == 200 and stage.get().status == "stopping"
    lease.release()
    stage.until("stopped")
    short = make_stage(drain=0.05)
    short.run("two")
    held = short.supervisor.lease("two")
    assert short.supervisor.stop_instance("two", wait=PATIENCE).status == "stopped"
    held.release()


def test_an_idle_instance_is_stopped(stage: Stage) -> None:
    stage.run(idle_timeout=MOMENT)
    stage.until("stopped")
    assert stage.get().error is None


def test_a_request_that_is_served_is_never_idle(stage: Stage) -> None:
    stage.create(idle_timeout=MOMENT)
    with stage.supervisor.lease("one") as lease:
        time.sleep(3 * MOMENT * 60)
        assert ask(lease) == 200 and stage.get().status == "running"
        released = time.monotonic()
    stage.until("stopped")
    assert time.monotonic() - released >= MOMENT * 60


def test_an_idle_timeout_of_nothing_is_never(stage: Stage) -> None:
    stage.run(idle_timeout=0)
    instance = stage.supervisor._registry.find("one")
    assert instance.idle_at(time.monotonic()) == float("inf")


def test_requests_race_the_idle_timeout_and_are_all_served(stage: Stage) -> None:
    stage.create(idle_timeout=0.02 / 60)
    for _ in range(12):
        with stage.supervisor.lease("one") as lease:
            assert ask(lease) == 200
        time.sleep(0.02)
    eventually(lambda: stage.get().status == "stopped")
