"""Instances that say they are healthy and get no further, and those that only look like it."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from llamactl.instances.progress import Progress, Sight
from llamactl.instances.slots import Slots
from tests.instances.asking import serving
from tests.instances.conftest import StageFactory, eventually

#: Long enough for a busy machine to show progress several times within it.
SOON = {"instances.wedged_after": 2.0}
RESTARTS = {**SOON, "instances.restart_wedged": True}
HANGS = "--fake-hang"
ENDLESS = {"tokens": 100_000, "gap": 0.02}


def slots(**tasks: tuple[int, int]) -> Slots:
    return Slots({(0, task): counts for task, counts in tasks.items()})


def looks(*sights: Sight) -> list[float]:
    """For how long it was stuck at each look, one every ten seconds."""
    progress = Progress()
    return [progress.look(sight, 10.0 * number) for number, sight in enumerate(sights)]


def test_slots_that_stand_still_are_no_progress() -> None:
    still = Sight(True, slots(a=(64, 3)), passed_on=5)
    assert looks(still, still, still) == [0.0, 10.0, 20.0]


@pytest.mark.parametrize("after", [(65, 3), (64, 4)])
def test_a_token_read_or_written_is_progress(after: tuple[int, int]) -> None:
    still, later = (Sight(True, slots(a=counts), 5) for counts in ((64, 3), after))
    assert looks(still, still, later, later) == [0.0, 10.0, 0.0, 10.0]


def test_another_task_is_progress() -> None:
    first, second = Sight(True, slots(a=(64, 3)), 5), Sight(True, slots(b=(64, 3)), 5)
    assert looks(first, first, second) == [0.0, 10.0, 0.0]


def test_a_part_that_was_passed_on_is_progress_whatever_the_slots_say() -> None:
    for known in (slots(a=(0, 0)), None):
        sights = [Sight(True, known, passed_on) for passed_on in (5, 5, 6)]
        assert looks(*sights) == [0.0, 10.0, 0.0]


def test_requests_without_a_slot_that_works_wait_for_their_clients() -> None:
    assert looks(*[Sight(True, slots(), 5)] * 3) == [0.0, 0.0, 0.0]


def test_clients_that_give_up_and_ask_again_do_not_make_it_go_on() -> None:
    stuck, left = Sight(True, slots(a=(64, 3)), 5), Sight(False, None, 5)
    assert looks(stuck, stuck, left, left, stuck, stuck) == [0.0, 10.0, 10.0, 10.0, 10.0, 20.0]


def test_time_without_requests_is_not_counted() -> None:
    left = Sight(False, None, 5)
    assert looks(left, left, left, Sight(True, slots(a=(1, 0)), 5)) == [0.0] * 4


def test_without_slots_what_others_pass_on_is_not_judged() -> None:
    unseen = Sight(True, None, 5, all_seen=False)
    assert looks(unseen, unseen, unseen) == [0.0] * 3
    frozen = Sight(True, slots(a=(1, 0)), 5, all_seen=False)
    assert looks(frozen, frozen) == [0.0, 10.0]


def test_time_in_which_nobody_looked_is_not_counted() -> None:
    """The server itself was stopped, or the machine slept."""
    progress, still = Progress(), Sight(True, slots(a=(64, 3)), 5)
    progress.look(still, 0.0)
    assert progress.look(still, 100_000.0) <= 60.0


@pytest.mark.parametrize("how", ["", "missing", "silent"])
def test_a_server_that_answers_health_and_nothing_else_is_wedged(
    make_stage: StageFactory, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    stage = make_stage(SOON, health_answer=0.3)
    flags = f"{HANGS} --fake-slots {how}" if how else HANGS
    pid = stage.run(**stage.fake(flags)).pid
    with serving(stage, {}):
        eventually(lambda: stage.get().health == "wedged", "wedged")
        assert (stage.get().status, stage.get().pid) == ("running", pid)
    # It is written down a moment after it can be seen.
    (told,) = eventually(
        lambda: [each.message for each in caplog.records if "is wedged" in each.message]
    )
    assert "no token further" in told


def test_a_wedged_instance_is_restarted_where_that_is_configured(
    make_stage: StageFactory,
) -> None:
    stage = make_stage(RESTARTS)
    pid = stage.run(restart_delay=0, **stage.fake(HANGS)).pid
    with serving(stage, {}):
        eventually(lambda: stage.get().pid not in (pid, None), "another process")
    again = stage.until("running")
    assert (again.restarts, again.health) == (1, "ok")
    assert len(stage.llama.events("start")) == 2


def test_a_wedged_instance_that_ignores_sigterm_is_restarted_too(make_stage: StageFactory) -> None:
    stage = make_stage(RESTARTS, grace=60.0, drain=60.0)
    pid = stage.run(restart_delay=0, **stage.fake(HANGS, "--fake-ignore-term")).pid
    with serving(stage, {}):
        eventually(lambda: stage.get().pid not in (pid, None), "another process")


def test_a_wedged_instance_without_auto_restart_is_only_told(make_stage: StageFactory) -> None:
    stage = make_stage(RESTARTS)
    pid = stage.run(auto_restart=False, **stage.fake(HANGS)).pid
    with serving(stage, {}):
        eventually(lambda: stage.get().health == "wedged", "wedged")
        looked = stage.supervisor.version()
        time.sleep(0.5)
        assert (stage.get().status, stage.get().pid) == ("running", pid)
        assert stage.supervisor.version() == looked


def test_an_instance_that_wedges_again_and_again_fails_with_the_reason(
    make_stage: StageFactory,
) -> None:
    stage = make_stage({**RESTARTS, "instances.wedged_after": 0.3})
    stage.run(restart_delay=0, max_restarts=1, **stage.fake(HANGS))
    with serving(stage, {}):
        eventually(lambda: stage.get().restarts, "the first end")
    stage.until("running")
    with serving(stage, {}):
        failed = stage.until("failed")
    assert "got no token further" in (failed.error or "")


@pytest.mark.parametrize(
    "shape", [ENDLESS, {"prefill": 3600}], ids=["a slow answer", "a long prefill"]
)
def test_an_instance_whose_slots_advance_is_never_wedged(
    make_stage: StageFactory, shape: dict[str, Any]
) -> None:
    stage = make_stage(RESTARTS)
    pid = stage.run().pid
    healths = set()
    with serving(stage, shape):
        deadline = time.monotonic() + 1.25 * SOON["instances.wedged_after"]
        while time.monotonic() < deadline:
            healths.add(stage.get().health)
            time.sleep(0.05)
    assert healths == {"ok"} and stage.get().pid == pid


@pytest.mark.parametrize("how", ["missing", "silent"])
def test_without_slots_the_parts_that_are_passed_on_are_its_progress(
    make_stage: StageFactory, how: str
) -> None:
    stage = make_stage(RESTARTS, health_answer=0.3)
    pid = stage.run(**stage.fake(f"--fake-slots {how}")).pid
    with serving(stage, ENDLESS) as lease:
        deadline = time.monotonic() + 1.25 * SOON["instances.wedged_after"]
        while time.monotonic() < deadline:
            lease.passed_on()
            assert stage.get().health == "ok"
            time.sleep(0.05)
        eventually(lambda: stage.get().pid != pid, "the end of one that is silent then")


def test_a_busy_instance_is_never_killed_for_a_slow_health_answer(
    make_stage: StageFactory,
) -> None:
    stage = make_stage(RESTARTS, health_answer=0.1)
    pid = stage.run().pid
    assert pid is not None
    with serving(stage, ENDLESS):
        stage.llama.record.with_name("hang").touch()
        eventually(lambda: stage.get().health == "busy", "busy")
        deadline = time.monotonic() + 1.25 * SOON["instances.wedged_after"]
        while time.monotonic() < deadline:
            assert (stage.get().health, stage.get().pid) == ("busy", pid)
            time.sleep(0.05)


def test_one_that_goes_on_again_is_told_so(
    make_stage: StageFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stage = make_stage(SOON)
    stage.run(**stage.fake("--fake-slots missing"))
    with serving(stage, ENDLESS) as lease:
        eventually(lambda: stage.get().health == "wedged", "wedged")
        lease.passed_on()
        eventually(lambda: stage.get().health == "ok", "ok")
    eventually(lambda: any(each.message == "one goes on" for each in caplog.records))


def test_nobody_is_asked_for_slots_while_nothing_is_in_flight(make_stage: StageFactory) -> None:
    stage = make_stage(SOON)
    stage.run()
    time.sleep(0.5)
    assert not [each for each in stage.llama.events("request") if each["path"] == "/slots"]
    with serving(stage, ENDLESS):
        stage.llama.wait_for("request", 3)
    assert [each for each in stage.llama.events("request") if each["path"] == "/slots"]


def test_zero_means_that_nothing_is_ever_wedged(make_stage: StageFactory) -> None:
    stage = make_stage({**RESTARTS, "instances.wedged_after": 0})
    pid = stage.run(**stage.fake(HANGS)).pid
    with serving(stage, {}):
        time.sleep(1.0)
        assert (stage.get().health, stage.get().pid) == ("ok", pid)
    assert not [each for each in stage.llama.events("request") if each["path"] == "/slots"]
