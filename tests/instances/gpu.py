"""A machine with a GPU whose memory the test tells, and instances that take so much of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from llamactl.models.fit import DEVICE_RESERVE, RAM_RESERVE, Device, Machine, Memory

if TYPE_CHECKING:
    from tests.instances.conftest import Stage

GB = 10**9
_PATIENCE = 60.0


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
        assert self.told.wait(_PATIENCE), "nobody said what runs"
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
        self.supervisor.start_instance(name, wait=_PATIENCE)

    def statuses(self) -> dict[str, str]:
        return {each.name: each.status for each in self.supervisor.instances()}


GpuFactory: TypeAlias = Callable[..., GpuStage]
