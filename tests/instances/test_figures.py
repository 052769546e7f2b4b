"""What running instances cost and do: on fake servers, and on the real one for its fields."""

from __future__ import annotations

import json

import pytest

from llamactl.instances import processes
from llamactl.instances.figures import Meter
from llamactl.instances.slots import Slots, read_slots
from tests.instances.asking import serving
from tests.instances.conftest import Stage, StageFactory, eventually


def slots(**written: int) -> Slots:
    return Slots({(0, task): (0, count) for task, count in written.items()})


def test_the_pace_is_what_was_written_between_two_readings() -> None:
    meter = Meter()
    assert meter.read(slots(a=5), 100.0) is None
    assert meter.read(slots(a=25), 102.0) == 10.0
    assert meter.read(slots(a=25, b=6), 104.0) == 3.0


def test_readings_in_quick_succession_tell_the_same_pace() -> None:
    meter = Meter()
    meter.read(slots(a=0), 100.0)
    assert meter.read(slots(a=20), 102.0) == 10.0
    assert meter.read(slots(a=21), 102.1) == 10.0
    assert meter.read(slots(a=40), 104.0) == 10.0


def test_a_reading_of_long_ago_tells_nothing_of_the_present_pace() -> None:
    meter = Meter()
    meter.read(slots(a=0), 100.0)
    assert meter.read(slots(a=9000), 400.0) is None
    assert meter.read(slots(a=9010), 401.0) == 10.0


def test_nobody_served_or_no_answer_is_no_pace() -> None:
    meter = Meter()
    meter.read(slots(a=0), 100.0)
    assert meter.read(slots(), 101.0) is None
    assert meter.read(None, 102.0) is None
    assert meter.read(slots(a=3), 103.0) is None


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b"null", b"[" * 100_000, b'{"error":{"code":501}}', b"\xff"]
)
def test_an_answer_that_is_no_list_of_slots_tells_nothing(body: bytes) -> None:
    assert read_slots(body) is None


def test_slots_of_other_builds_are_read_too() -> None:
    told = [
        {"id": 0, "is_processing": True, "id_task": 7, "next_token": {"n_decoded": 3}},
        {"id": 1, "is_processing": True, "id_task": "?", "next_token": "?"},
        {"id": 2, "is_processing": False},
    ]
    assert read_slots(json.dumps(told).encode()) == Slots({(0, 7): (0, 3), (1, None): (0, 0)})


def test_a_running_instance_tells_its_memory_and_its_pace(stage: Stage) -> None:
    stage.run()
    resting = stage.supervisor.figures()["one"]
    assert resting.memory_bytes is not None and resting.memory_bytes > 1_000_000
    assert resting.tokens_per_second is None
    with serving(stage, {"tokens": 10_000, "gap": 0.01}):
        eventually(lambda: stage.supervisor.figures("one")["one"].tokens_per_second)
    assert stage.get().requests == 1


def test_instances_that_do_not_run_have_no_figures(stage: Stage) -> None:
    stage.create("stopped")
    assert stage.supervisor.figures() == {}
    stage.run("one")
    assert set(stage.supervisor.figures()) == {"one"}
    assert set(stage.supervisor.figures("stopped")) == set()


def test_what_an_instance_has_started_counts_to_its_memory(make_stage: StageFactory) -> None:
    stage = make_stage(fork=True)
    pid = stage.run().pid
    assert pid is not None
    stage.llama.wait_for("grandchild")
    alone = int(processes._stat(pid)[21]) * processes._PAGE
    told = eventually(lambda: stage.supervisor.figures()["one"].memory_bytes)
    assert told > alone


@pytest.mark.parametrize("how", ["missing", "silent", "'[{}'"])
def test_an_instance_that_tells_no_slots_has_no_pace(make_stage: StageFactory, how: str) -> None:
    stage = make_stage()
    stage.run(**stage.fake(f"--fake-slots {how}"))
    with serving(stage, {"tokens": 10_000, "gap": 0.01}):
        assert stage.supervisor.figures()["one"].tokens_per_second is None
