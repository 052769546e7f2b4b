"""Requests that need memory which others have, on a machine whose memory the test tells."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from llamactl.errors import InsufficientMemory, StartTimeout
from tests.instances.asking import served_in_turn
from tests.instances.conftest import PATIENCE, eventually
from tests.instances.gpu import GpuFactory


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
    assert served_in_turn(gpu.stage, "a", ["c", "b", "d"]) == ["c", "b", "d"]


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


def test_where_it_is_enforced_a_request_for_what_never_fits_does_not_wait(
    on_gpu: GpuFactory,
) -> None:
    gpu = on_gpu("enforce")
    gpu.create("huge", 40)
    with pytest.raises(InsufficientMemory, match=r"40\.0 GB") as caught:
        gpu.supervisor.lease("huge")
    assert "smaller context" in caught.value.hint


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
