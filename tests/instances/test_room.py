"""Memory-aware admission, on fake llama-servers and a machine whose memory the test tells."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llamactl.errors import InsufficientMemory, ModelNotFound, StartTimeout
from llamactl.instances import processes
from llamactl.instances.admission import Amount
from llamactl.instances.memory import RECENT
from llamactl.instances.modelfiles import ResolvedModel
from llamactl.instances.room import Room
from llamactl.models.fit import DEVICE_RESERVE, RAM_RESERVE, Device, Machine, Memory
from tests.instances.conftest import PATIENCE, Stage, StageFactory, eventually

GB = 10**9


class FakeMachine:
    """A GPU of ``size`` bytes beyond the reserve, of which what runs takes what its file is large.

    ``held_back`` is what a driver has not given back yet; ``unseen``: nothing that runs shows.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.held_back = 0
        self.looks = 0
        self.within: list[float] = []
        self.running: Callable[[], int] = lambda: 0
        self.told = threading.Event()
        self.told.set()

    def __call__(self, within: float) -> Machine:
        assert self.told.wait(PATIENCE), "nobody said what runs"
        self.looks += 1
        self.within.append(within)
        free = self.size - self.running() - self.held_back + DEVICE_RESERVE
        total = self.size + DEVICE_RESERVE
        ram = Memory(RAM_RESERVE, RAM_RESERVE)
        return Machine(ram, (Device("CUDA0", "", Memory(max(0, free), total)),))


class GpuStage:
    """A stage whose instances take as many GB of the GPU as they are said to."""

    def __init__(
        self, stage: Stage, machine: FakeMachine, sizes: dict[str, int] | None = None
    ) -> None:
        self.stage, self.machine, self.supervisor = stage, machine, stage.supervisor
        self.sizes: dict[str, int] = dict(sizes or {})
        machine.running = self._running
        machine.told.set()

    def _running(self) -> int:
        up = ("running", "stopping")
        alive = [each for each in self.supervisor.instances() if each.status in up]
        return sum(self.sizes.get(each.name, 0) for each in alive)

    def create(self, name: str, gigabytes: int, **options: Any) -> None:
        path = self.stage.llama.model.with_name(f"{name}.gguf")
        with path.open("wb") as file:
            file.write(b"GGUF" + (3).to_bytes(4, "little"))
            file.truncate(gigabytes * GB)
        self.sizes[name] = gigabytes * GB
        flags = {"model": str(path), "gpu_layers": "all", **options.pop("flags", {})}
        self.stage.create(name, backend_options=flags, **options)

    def run(self, name: str, gigabytes: int, **options: Any) -> None:
        self.create(name, gigabytes, **options)
        self.supervisor.start_instance(name, wait=PATIENCE)

    def statuses(self) -> dict[str, str]:
        return {each.name: each.status for each in self.supervisor.instances()}


GpuFactory = Callable[..., GpuStage]


@pytest.fixture
def on_gpu(make_stage: StageFactory) -> GpuFactory:
    def make(mode: str = "warn", size: int = 10, **flags: Any) -> GpuStage:
        machine = FakeMachine(size * GB)
        settings = {"instances.memory_admission": mode, **flags.pop("settings", {})}
        # Those of a former life come up as soon as the stage is there.
        sizes = flags.pop("sizes", {})
        machine.told.clear()
        return GpuStage(make_stage(settings, machine=machine, **flags), machine, sizes)

    return make


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


def test_several_stop_where_one_is_not_enough(on_gpu: GpuFactory) -> None:
    gpu = on_gpu()
    for name in ("a", "b", "c"):
        gpu.run(name, 3)
    gpu.create("big", 7)
    assert gpu.supervisor.plan("big").evicts == ("a", "b")
    with gpu.supervisor.lease("big"):
        assert gpu.statuses() == {
            "a": "stopped",
            "b": "stopped",
            "c": "running",
            "big": "running",
        }


def test_a_request_waits_for_a_busy_one_and_takes_its_memory_then(on_gpu: GpuFactory) -> None:
    gpu = on_gpu()
    gpu.create("a", 6)
    gpu.create("b", 6)
    busy = gpu.supervisor.lease("a")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(gpu.supervisor.lease, "b")
        eventually(lambda: gpu.supervisor._places.queued(gpu.supervisor._registry.find("b")))
        assert gpu.statuses() == {"a": "running", "b": "stopped"}
        busy.release()
        waiting.result(PATIENCE).release()
    assert gpu.statuses() == {"a": "stopped", "b": "running"}


def test_requests_that_wait_for_memory_are_served_in_their_order(on_gpu: GpuFactory) -> None:
    gpu = on_gpu()
    for name in ("a", "b", "c", "d"):
        gpu.create(name, 6)
    held = gpu.supervisor.lease("a")
    order: list[str] = []

    def use(name: str) -> None:
        with gpu.supervisor.lease(name):
            order.append(name)

    with ThreadPoolExecutor(3) as pool:
        for name in ("c", "b", "d"):
            pool.submit(use, name)
            instance = gpu.supervisor._registry.find(name)
            eventually(lambda: gpu.supervisor._places.queued(instance))  # noqa: B023 - at once
        held.release()
    assert order == ["c", "b", "d"]


def test_who_waits_in_vain_is_told_the_figures(on_gpu: GpuFactory) -> None:
    gpu = on_gpu()
    gpu.create("a", 6)
    gpu.create("b", 6)
    with (
        gpu.supervisor.lease("a"),
        pytest.raises(StartTimeout, match=r"6\.0 GB, and 4\.0 GB are free") as caught,
    ):
        gpu.supervisor.lease("b", timeout=0.3)
    assert caught.value.retry_after


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


def test_what_never_fits_is_tried_with_all_the_room_that_there_is(
    on_gpu: GpuFactory, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = on_gpu()
    gpu.run("idle", 3)
    gpu.create("huge", 40)
    assert "That is not enough by this estimate" in gpu.supervisor.plan("huge").why
    with gpu.supervisor.lease("huge"):
        assert gpu.statuses() == {"idle": "stopped", "huge": "running"}
    assert "huge is started all the same: It takes about 40.0 GB" in caplog.text


def test_where_it_is_enforced_a_request_for_what_never_fits_does_not_wait(
    on_gpu: GpuFactory,
) -> None:
    gpu = on_gpu("enforce")
    gpu.create("huge", 40)
    with pytest.raises(InsufficientMemory, match=r"40\.0 GB") as caught:
        gpu.supervisor.lease("huge")
    assert "smaller context" in caught.value.hint


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


def test_memory_that_a_stopped_one_had_is_free_for_the_next_while_another_loads(
    on_gpu: GpuFactory,
) -> None:
    gpu = on_gpu("enforce")
    gpu.run("a", 4)
    gpu.create("slow", 4, environment={"FAKE_LLAMA": "--fake-load 60"})
    gpu.supervisor.start_instance("slow")
    gpu.create("b", 5)
    gpu.supervisor.stop_instance("a", wait=PATIENCE)
    gpu.supervisor.start_instance("b", wait=PATIENCE)
    assert gpu.statuses()["b"] == "running"


def test_a_start_waits_until_the_memory_of_the_evicted_one_is_back(on_gpu: GpuFactory) -> None:
    gpu = on_gpu(memory_back=PATIENCE * 2)
    gpu.run("a", 6)
    gpu.create("b", 6)
    gpu.machine.held_back = 6 * GB
    gpu.supervisor.start_instance("b")
    gpu.stage.until("stopped", "a")
    looks = gpu.machine.looks
    eventually(lambda: gpu.machine.looks > looks + 3)
    assert len(gpu.stage.llama.events("start")) == 1
    gpu.machine.held_back = 0
    gpu.stage.until("running", "b")


@pytest.mark.parametrize("mode", ["warn", "enforce"])
def test_a_start_waits_for_one_that_is_being_stopped_anyway(
    on_gpu: GpuFactory, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    gpu = on_gpu(mode, ignore_term=True, grace=0.5)
    gpu.run("a", 6)
    gpu.create("b", 6)
    gpu.supervisor.stop_instance("a")
    plan = gpu.supervisor.plan("b")
    assert (plan.starts, plan.fits, plan.evicts) == (True, True, ())
    gpu.supervisor.start_instance("b", wait=PATIENCE)
    assert gpu.statuses() == {"a": "stopped", "b": "running"}
    assert len(gpu.stage.processes()) == 1 and "all the same" not in caplog.text


def test_the_wait_for_memory_is_bounded(
    on_gpu: GpuFactory, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = on_gpu(memory_back=0.2)
    gpu.run("a", 6)
    gpu.machine.held_back = 6 * GB
    gpu.run("b", 6)
    assert "not all memory that was expected is free" in caplog.text


def test_a_stop_ends_the_wait_for_memory(on_gpu: GpuFactory) -> None:
    gpu = on_gpu(memory_back=3600)
    gpu.run("a", 6)
    gpu.create("b", 6)
    gpu.machine.held_back = 6 * GB
    gpu.supervisor.start_instance("b")
    gpu.stage.until("stopped", "a")
    gpu.supervisor.stop_instance("b", wait=PATIENCE)
    assert gpu.statuses()["b"] == "stopped" and len(gpu.stage.llama.events("start")) == 1


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


def test_a_crash_keeps_the_memory_for_the_restart(on_gpu: GpuFactory) -> None:
    gpu = on_gpu("enforce")
    gpu.create("a", 6, restart_delay=3600)
    gpu.create("b", 6, on_demand_start=True)
    running = gpu.supervisor.start_instance("a", wait=PATIENCE)
    with gpu.supervisor.lease("a"):
        assert running.pid is not None
        os.kill(running.pid, 9)
        gpu.stage.until("restarting", "a")
        with pytest.raises(InsufficientMemory):
            gpu.supervisor.start_instance("b")
    gpu.supervisor.start_instance("b", wait=PATIENCE)
    assert gpu.statuses() == {"a": "stopped", "b": "running"}


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


def test_a_restart_with_a_larger_context_is_weighed_anew(on_gpu: GpuFactory) -> None:
    gpu = on_gpu("enforce")
    gpu.run("a", 4)
    gpu.create("larger", 8)
    larger = gpu.supervisor.get("larger").options
    gpu.sizes["a"] = 8 * GB
    gpu.supervisor.update("a", larger)
    eventually(lambda: gpu.supervisor._shared.room.held_by("a").total == 8 * GB)
    gpu.stage.until("running", "a")
    gpu.create("b", 4)
    assert gpu.supervisor.plan("b").evicts == ("a",)


def room(*readings: Machine) -> Room:
    left = list(readings)

    def resolve(reference: str) -> ResolvedModel:
        raise ModelNotFound(reference)

    def read(_within: float) -> Machine:
        return left.pop(0) if len(left) > 1 else left[0]

    return Room(read, resolve, "warn", threading.RLock())


def with_ram(free: int) -> Machine:
    return Machine(Memory(free + RAM_RESERVE, 100 + RAM_RESERVE))


def test_what_loads_counts_until_it_shows_and_only_once() -> None:
    rooms = room(with_ram(100), with_ram(70), with_ram(50), with_ram(45))
    rooms.look()
    rooms.claim("a", Amount(ram=50))
    assert rooms.free() == Amount(ram=50)
    rooms.look()  # It has loaded 30 of its 50.
    assert rooms.free() == Amount(ram=50)
    rooms.claim("b", Amount(ram=5))
    assert rooms.free() == Amount(ram=45)
    rooms.look()
    rooms.loaded("a", os.getpid())
    assert rooms.free() == Amount(ram=45)
    rooms.loaded("b", os.getpid())
    assert rooms.free() == Amount(ram=45)
    rooms.look()
    assert rooms.free() == Amount(ram=45)


def test_what_an_end_gives_back_is_free_at_once_by_reckoning() -> None:
    rooms = room(with_ram(100))
    rooms.look()
    rooms.claim("a", Amount(ram=60))
    rooms.release("a")
    rooms.release("a")
    assert rooms.held_by("a") == Amount()
    rooms.look()
    assert rooms.free() == Amount(ram=100)


def test_a_machine_that_tells_nothing_leaves_all_open() -> None:
    rooms = room(Machine(None))
    assert rooms.free() is None
    rooms.look()
    rooms.claim("a", Amount(ram=5))
    rooms.loaded("a", os.getpid())
    assert rooms.free() is None


def test_pages_of_the_weights_that_a_running_one_has_mapped_are_not_free(tmp_path: Path) -> None:
    mapped = processes.mapped_bytes(os.getpid())
    assert mapped > 0 and processes.mapped_bytes(0) == 0
    rooms = room(with_ram(mapped))
    rooms.look()
    rooms.claim("a", Amount(ram=mapped // 2), pageable=mapped)
    rooms.loaded("a", os.getpid())
    rooms.look()
    assert rooms.free() == Amount(ram=mapped - mapped // 2)
