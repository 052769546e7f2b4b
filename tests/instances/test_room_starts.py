"""What a start means for the memory, on a machine whose memory the test tells."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from llamactl.errors import InsufficientMemory
from llamactl.instances.admission import Amount
from llamactl.instances.memory import RECENT
from llamactl.models.fit import DEVICE_RESERVE, RAM_RESERVE, Device, Machine, Memory
from tests.instances.conftest import PATIENCE, StageFactory, eventually
from tests.instances.gpu import GB, FakeMachine, GpuFactory, GpuStage


def test_an_idle_instance_makes_room_for_one_that_would_not_fit(on_gpu: GpuFactory) -> None:
    gpu = on_gpu()
    gpu.run("a", 6)
    gpu.run("b", 6)
    assert gpu.statuses() == {"a": "stopped", "b": "running"}


def test_the_devices_are_asked_anew_only_where_somebody_else_runs_or_it_does_not_fit(
    on_gpu: GpuFactory,
) -> None:
    gpu = on_gpu()
    gpu.create("a", 6)
    gpu.create("b", 3)
    gpu.create("c", 11)
    eventually(lambda: gpu.machine.looks, "the look of the server's start")
    for name, anew in (("a", False), ("b", True)):
        gpu.machine.within.clear()
        gpu.supervisor.start_instance(name, wait=PATIENCE)
        assert (min(gpu.machine.within) <= RECENT) == anew, name
    for name in ("a", "b"):
        gpu.supervisor.stop_instance(name, wait=PATIENCE)
    gpu.machine.within.clear()
    gpu.supervisor.start_instance("c", wait=PATIENCE)
    assert min(gpu.machine.within) <= RECENT


def test_a_machine_without_devices_is_looked_at_once_for_a_start(make_stage: StageFactory) -> None:
    looks: list[float] = []

    def read(within: float) -> Machine:
        looks.append(within)
        return Machine(Memory(100 * GB, 100 * GB))

    stage = make_stage(machine=read)
    stage.create("a")
    eventually(lambda: looks)
    looks.clear()
    stage.supervisor.start_instance("a", wait=PATIENCE)
    assert len(looks) == 1


def test_those_that_fit_beside_each_other_stay(on_gpu: GpuFactory) -> None:
    gpu = on_gpu()
    for name in ("a", "b"):
        gpu.run(name, 5)
    assert gpu.statuses() == {"a": "running", "b": "running"}


def test_the_plan_says_what_the_start_then_does(on_gpu: GpuFactory) -> None:
    gpu = on_gpu()
    for name, size in (("small", 1), ("old", 4), ("young", 4)):
        gpu.run(name, size)
    gpu.create("big", 5)
    plan = gpu.supervisor.plan("big")
    assert (plan.needs, plan.free, plan.fits, plan.starts) == (5 * GB, 1 * GB, True, True)
    assert plan.evicts == ("old",) and plan.held == {"old": 4 * GB}
    assert "It takes more than 5.0 GB, and 1.0 GB are free on the GPU" in plan.why
    assert "old (4.0 GB) stops for it: it was idle for longest, and memory is needed." in plan.why
    gpu.supervisor.start_instance("big", wait=PATIENCE)
    assert gpu.statuses() == {
        "small": "running",
        "old": "stopped",
        "young": "running",
        "big": "running",
    }


@pytest.mark.parametrize("mode", ["off", "warn"])
def test_a_person_who_starts_one_too_many_is_obeyed(on_gpu: GpuFactory, mode: str) -> None:
    gpu = on_gpu(mode)
    gpu.create("a", 6)
    gpu.create("b", 6)
    with gpu.supervisor.lease("a"):
        assert gpu.supervisor.plan("b").starts
        gpu.supervisor.start_instance("b", wait=PATIENCE)
        assert gpu.statuses() == {"a": "running", "b": "running"}


def test_where_it_is_enforced_a_person_is_told(on_gpu: GpuFactory) -> None:
    gpu = on_gpu("enforce")
    gpu.create("a", 6)
    gpu.create("b", 6)
    with gpu.supervisor.lease("a"):
        plan = gpu.supervisor.plan("b")
        with pytest.raises(InsufficientMemory) as caught:
            gpu.supervisor.start_instance("b")
    assert (plan.starts, plan.fits) == (False, False) and caught.value.details in plan.why
    assert gpu.statuses() == {"a": "running", "b": "stopped"}


def test_two_starts_at_once_do_not_both_take_the_same_memory(on_gpu: GpuFactory) -> None:
    gpu = on_gpu("enforce", load=60)
    for name in ("a", "b", "c"):
        gpu.create(name, 6)
    barrier = threading.Barrier(3)

    def start(name: str) -> bool:
        barrier.wait(PATIENCE)
        try:
            gpu.supervisor.start_instance(name)
        except InsufficientMemory:
            return False
        return True

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(start, ("a", "b", "c"))) == [False, False, True]


def test_what_is_not_known_is_admitted(make_stage: StageFactory) -> None:
    stage = make_stage({"instances.memory_admission": "enforce"}, machine=FakeMachine(0))
    stage.run("router", backend_options={"ctx_size": 512})
    stage.run("hub", backend_options={"hf_repo": "org/not-cached"})


def test_mapped_weights_that_do_not_fit_are_started_and_said_to_be_slow(
    make_stage: StageFactory,
) -> None:
    machine = Machine(Memory(RAM_RESERVE + GB, 2 * GB))
    stage = make_stage({"instances.memory_admission": "enforce"}, machine=lambda _now: machine)
    gpu = GpuStage(stage, FakeMachine(0))
    gpu.create("mapped", 8)
    gpu.create("held", 8, flags={"mmap": False})
    plan = gpu.supervisor.plan("mapped")
    assert (plan.fits, plan.starts, plan.site) == (False, True, "paged")
    assert "It takes more than 8.0 GB, and 1.0 GB are free" in plan.why and "slow" in plan.why
    assert "GPU" not in plan.why
    gpu.supervisor.start_instance("mapped", wait=PATIENCE)
    with pytest.raises(InsufficientMemory):
        gpu.supervisor.start_instance("held")


def test_without_admission_the_plan_still_says_whether_it_fits(on_gpu: GpuFactory) -> None:
    gpu = on_gpu("off")
    gpu.create("small", 4)
    gpu.create("huge", 40)
    small, huge = gpu.supervisor.plan("small"), gpu.supervisor.plan("huge")
    assert (small.fits, small.starts, small.site) == (True, True, "devices")
    assert (huge.fits, huge.starts, huge.site) == (False, True, None)
    assert "That is not enough" in huge.why


def test_a_machine_that_tells_nothing_admits_everybody(make_stage: StageFactory) -> None:
    settings = {"instances.memory_admission": "enforce"}
    stage = make_stage(settings, machine=lambda _now: Machine(None))
    stage.run("one")


@pytest.mark.parametrize(
    ("mode", "up"),
    [("off", {"a", "b", "c"}), ("warn", {"b", "c"}), ("enforce", {"b", "c"})],
)
def test_those_that_come_up_with_the_server_are_weighed_one_after_another(
    on_gpu: GpuFactory, mode: str, up: set[str]
) -> None:
    first = on_gpu("off")
    for name, size in (("a", 6), ("b", 6), ("c", 3)):
        first.run(name, size)
        first.supervisor.lease(name).release()
    for name in ("a", "c", "b"):
        first.supervisor.lease(name).release()
    assert first.stage.stop()
    second = on_gpu(mode, size=10, sizes=first.sizes)
    for name in up:
        second.stage.until("running", name)
    for name in {"a", "b", "c"} - up:
        eventually(lambda: second.supervisor.get(name).error)  # noqa: B023 - at once
        told = second.supervisor.get(name).error or ""
        assert "It takes about 6.0 GB, and 1.0 GB are free on the GPU" in told
    assert {name for name, status in second.statuses().items() if status == "running"} == up


def test_one_that_never_fits_comes_up_again_where_it_is_alone(on_gpu: GpuFactory) -> None:
    first = on_gpu("off")
    first.run("small", 1)
    first.run("huge", 40)
    first.supervisor.lease("huge").release()
    assert first.stage.stop()
    second = on_gpu("warn", sizes=first.sizes)
    second.stage.until("running", "huge")
    eventually(lambda: second.supervisor.get("small").error)
    assert second.statuses() == {"small": "stopped", "huge": "running"}


def test_an_instance_on_one_of_two_gpus_is_weighed_on_that_one(make_stage: StageFactory) -> None:
    free = {"CUDA0": 20 * GB, "CUDA1": 4 * GB}
    devices = tuple(
        Device(name, "", Memory(size + DEVICE_RESERVE, 24 * GB)) for name, size in free.items()
    )
    machine = Machine(Memory(RAM_RESERVE, RAM_RESERVE), devices)
    stage = make_stage({"instances.memory_admission": "enforce"}, machine=lambda _within: machine)
    gpu = GpuStage(stage, FakeMachine(0))
    gpu.create("both", 22)
    gpu.create("second", 6, flags={"device": "CUDA1"})
    gpu.create("first", 6, flags={"split_mode": "none", "main_gpu": 0})
    assert gpu.supervisor.plan("both").fits
    plan = gpu.supervisor.plan("second")
    assert (plan.starts, plan.free) == (False, 4 * GB)
    assert "It takes more than 6.0 GB, and 4.0 GB are free on CUDA1" in plan.why
    with pytest.raises(InsufficientMemory, match=r"4\.0 GB are free on CUDA1"):
        gpu.supervisor.start_instance("second")
    gpu.supervisor.start_instance("first", wait=PATIENCE)
    assert gpu.supervisor._shared.room.held_by("first") == Amount({"CUDA0": 6 * GB})
