"""Who gets a place where no more may run: in which order, and whom it costs its own."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llamactl.errors import (
    Interrupted,
    MaxInstancesReached,
    StartTimeout,
)
from llamactl.instances import processes
from tests.instances.asking import ask, served_in_turn
from tests.instances.conftest import PATIENCE, StageFactory, eventually


def test_with_one_place_two_instances_take_turns(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.max_running_instances": 1})
    for name in ("a", "b"):
        stage.create(name)
    for name in ("a", "b", "a"):
        with stage.supervisor.lease(name) as lease:
            assert ask(lease) == 200
            assert len(stage.processes()) == 1
    assert {each.name: each.status for each in stage.supervisor.instances()} == {
        "a": "running",
        "b": "stopped",
    }


def test_the_least_recently_used_of_three_makes_room(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.max_running_instances": 2})
    for name in ("a", "b", "c"):
        stage.create(name)
    for name in ("a", "b", "a", "c"):
        stage.supervisor.lease(name).release()
    statuses = {each.name: each.status for each in stage.supervisor.instances()}
    assert statuses == {"a": "running", "b": "stopped", "c": "running"}


def test_a_busy_instance_is_never_evicted_and_who_waits_gets_the_place_after(
    make_stage: StageFactory,
) -> None:
    stage = make_stage({"instances.max_running_instances": 1})
    for name in ("a", "b"):
        stage.create(name)
    busy = stage.supervisor.lease("a")
    with pytest.raises(StartTimeout, match="No place"):
        stage.supervisor.lease("b", timeout=0.1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stage.supervisor.lease, "b")
        time.sleep(0.1)
        assert not waiting.done() and ask(busy) == 200
        busy.release()
        waiting.result(PATIENCE).release()
    assert stage.get("a").status == "stopped"


def test_those_who_wait_are_served_in_their_order(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.max_running_instances": 1})
    for name in ("a", "b", "c", "d"):
        stage.create(name)
    assert served_in_turn(stage, "a", ["c", "b", "d"]) == ["c", "b", "d"]


def test_what_was_just_started_for_a_request_serves_it_before_it_makes_room(
    make_stage: StageFactory,
) -> None:
    stage = make_stage({"instances.max_running_instances": 1})
    stage.llama.loading.touch()
    for name in ("a", "b"):
        stage.create(name)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(stage.supervisor.lease, "a")
        stage.until("starting", "a")
        second = pool.submit(stage.supervisor.lease, "b")
        instance = stage.supervisor._registry.find("b")
        eventually(lambda: stage.supervisor._places.queued(instance))
        stage.llama.loading.unlink()
        lease = first.result(PATIENCE)
        assert ask(lease) == 200 and not second.done()
        lease.release()
        second.result(PATIENCE).release()
    assert len(stage.llama.events("start")) == 2


def test_two_who_wait_for_one_share_the_eviction(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.max_running_instances": 2})
    for name in ("a", "b", "c"):
        stage.create(name)
    for name in ("a", "b"):
        stage.supervisor.lease(name).release()
    with ThreadPoolExecutor(2) as pool:
        for lease in pool.map(lambda _: stage.supervisor.lease("c"), range(2)):
            lease.release()
    assert stage.get("b").status == "running" and stage.get("a").status == "stopped"
    assert len(stage.llama.events("start")) == 3


def test_without_eviction_a_full_house_is_said_at_once(make_stage: StageFactory) -> None:
    stage = make_stage(
        {"instances.max_running_instances": 1, "instances.enable_lru_eviction": False}
    )
    for name in ("a", "b"):
        stage.create(name)
    stage.supervisor.lease("a").release()
    with pytest.raises(MaxInstancesReached):
        stage.supervisor.lease("b")
    with pytest.raises(MaxInstancesReached, match="1 instance runs already"):
        stage.supervisor.start_instance("b")


def test_a_person_gets_a_place_by_eviction_or_is_told_at_once(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.max_running_instances": 1})
    for name in ("a", "b"):
        stage.create(name)
    with stage.supervisor.lease("a"):
        with pytest.raises(MaxInstancesReached, match="none of them is idle"):
            stage.supervisor.start_instance("b")
    assert stage.supervisor.start_instance("b").status == "starting"
    assert stage.supervisor.start_instance("b", wait=PATIENCE).status == "running"
    assert stage.get("a").status == "stopped"


def test_a_group_has_a_limit_of_its_own(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.group_limits": {"big": 1}})
    for name in ("a", "b"):
        stage.create(name, group="big")
    stage.create("small", group="small")
    for name in ("a", "small", "b"):
        stage.supervisor.lease(name).release()
    statuses = {each.name: each.status for each in stage.supervisor.instances()}
    assert statuses == {"a": "stopped", "b": "running", "small": "running"}


def test_who_waits_for_a_full_group_holds_nobody_else_back(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.group_limits": {"big": 1}, "instances.max_running_instances": 2})
    for name in ("a", "b"):
        stage.create(name, group="big")
    stage.create("other")
    busy = stage.supervisor.lease("a")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stage.supervisor.lease, "b")
        instance = stage.supervisor._registry.find("b")
        eventually(lambda: stage.supervisor._places.queued(instance))
        stage.supervisor.lease("other").release()
        assert not waiting.done()
        busy.release()
        waiting.result(PATIENCE).release()
    statuses = {each.name: each.status for each in stage.supervisor.instances()}
    assert statuses == {"a": "stopped", "b": "running", "other": "running"}


def test_a_place_that_nobody_waits_for_any_more_goes_to_the_next(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.max_running_instances": 1})
    for name in ("a", "b", "c"):
        stage.create(name)
    left = threading.Event()
    busy = stage.supervisor.lease("a")
    with ThreadPoolExecutor(2) as pool:
        leaver = pool.submit(stage.supervisor.lease, "b", cancelled=left.is_set)
        first = stage.supervisor._registry.find("b")
        eventually(lambda: stage.supervisor._places.queued(first))
        stayer = pool.submit(stage.supervisor.lease, "c")
        second = stage.supervisor._registry.find("c")
        eventually(lambda: stage.supervisor._places.queued(second))
        left.set()
        with pytest.raises(Interrupted):
            leaver.result(PATIENCE)
        busy.release()
        stayer.result(PATIENCE).release()
    assert stage.get("b").status == "stopped"
    assert len(stage.llama.events("start")) == 2


def test_ten_starters_never_exceed_two_places(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.max_running_instances": 2})
    names = [f"i{number}" for number in range(6)]
    for name in names:
        stage.create(name)
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.002):
            # One that was seen can end while others are looked for.
            seen = stage.processes()
            most = max(most, sum(processes.start_ticks(pid) is not None for pid in seen))

    watcher = threading.Thread(target=watch)
    watcher.start()

    def use(number: int) -> None:
        with stage.supervisor.lease(names[number % 6]):
            pass

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(use, range(18)))
    done.set()
    watcher.join()
    assert 0 < most <= 2


def test_an_evicted_one_that_is_wanted_again_queues_like_everybody(
    make_stage: StageFactory,
) -> None:
    stage = make_stage({"instances.max_running_instances": 1}, ignore_term=True, grace=0.3)
    for name in ("a", "b"):
        stage.create(name)
    stage.supervisor.lease("a").release()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(stage.supervisor.lease, "b")
        eventually(lambda: stage.get("a").status != "running")
        second = pool.submit(stage.supervisor.lease, "a")
        first.result(PATIENCE).release()
        second.result(PATIENCE).release()
    assert stage.get("a").status == "running" and stage.get("b").status == "stopped"
