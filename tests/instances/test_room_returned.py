"""Memory on its way from one instance to the next, on a machine whose memory the test tells."""

from __future__ import annotations

import os

import pytest

from llamactl.errors import InsufficientMemory
from tests.instances.conftest import PATIENCE, eventually
from tests.instances.gpu import GB, GpuFactory


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
