"""Fixtures of the instances' tests: a supervisor on fake llama-servers, and what must be left."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llamactl.config import Config
from llamactl.database import Database
from llamactl.errors import ModelNotFound
from llamactl.instances import processes
from llamactl.instances.modelfiles import ResolvedModel
from llamactl.instances.options import Options
from llamactl.instances.reaper import mark_prefix
from llamactl.instances.room import ReadMachine
from llamactl.instances.snapshot import InstanceSnapshot
from llamactl.instances.supervisor import Supervisor, Timing
from tests.conftest import ConfigFactory
from tests.fakes.llama import FakeLlama
from tests.instances.gpu import GB, FakeMachine, GpuFactory, GpuStage
from tests.ports import instance_ports

#: Short enough for a test, long enough for a busy machine.
QUICK = Timing(poll=0.01, drain=0.2, grace=1.0, longest_backoff=0.4, health_interval=0.1)
PATIENCE = 60.0
#: Also several runs of the tests on one machine keep out of each other's way.
FIRST_PORT = 20000 + os.getpid() % 29 * 100


def eventually(condition: Callable[[], Any], what: str = "it") -> Any:
    """The first true value of ``condition``; fails when that takes unreasonably long."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true")
        time.sleep(0.005)
    return value


class Stage:
    """A supervisor with its configuration, and shorthands for what tests do with it."""

    def __init__(
        self,
        config: Config,
        database: Database,
        llama: FakeLlama,
        timing: Timing,
        read_machine: ReadMachine | None = None,
    ):
        self.config = config
        self.database = database
        self.llama = llama
        self.supervisor = Supervisor(
            config, database, self._resolve, timing=timing, read_machine=read_machine
        )
        self.models: dict[str, ResolvedModel] = {}

    def _resolve(self, reference: str) -> ResolvedModel:
        if reference not in self.models:
            raise ModelNotFound(f"{reference} is not cached", hint="Download it.")
        return self.models[reference]

    def options(self, **options: Any) -> Options:
        """Options on the fake's model; keywords are the fields of the JSON."""
        raw: dict[str, Any] = {"backend_options": {"model": str(self.llama.model)}, **options}
        return Options.from_json(raw, self.config)

    def fake(self, *flags: str) -> dict[str, Any]:
        """Options of one instance that has the fake misbehave: ``fake("--fake-load 2")``."""
        return {"environment": {"FAKE_LLAMA": " ".join(flags)}}

    def create(self, name: str = "one", **options: Any) -> InstanceSnapshot:
        return self.supervisor.create(name, self.options(**options))

    def run(self, name: str = "one", **options: Any) -> InstanceSnapshot:
        """Create it and wait until it runs."""
        self.create(name, **options)
        return self.supervisor.start_instance(name, wait=PATIENCE)

    def get(self, name: str = "one") -> InstanceSnapshot:
        return self.supervisor.get(name)

    def until(self, status: str, name: str = "one") -> InstanceSnapshot:
        """Its snapshot once it has that status."""
        eventually(lambda: self.get(name).status == status, f"{name} {status}: {self.get(name)}")
        return self.get(name)

    def processes(self) -> list[int]:
        """Every living process that this supervisor's children are or have started."""
        return list(processes.with_mark(mark_prefix(self.config.data_dir)))

    def stop(self) -> bool:
        self.supervisor.request_stop()
        return self.supervisor.join(PATIENCE)


StageFactory = Callable[..., Stage]


@pytest.fixture
def make_stage(make_config: ConfigFactory, tmp_path: Path) -> Iterator[StageFactory]:
    """Supervisors: ``make_stage(settings={…}, load=0.2, stable=1.0)``.

    Keywords that ``Timing`` has are times, the others flags of the fake; ``hub`` is its endpoint
    and token, ``machine`` tells its memory. Afterwards nothing may be left of any of them.
    """
    stages: list[Stage] = []
    times = {field.name for field in dataclasses.fields(Timing)}

    def make(
        settings: dict[str, object] | None = None,
        *,
        hub: tuple[str, str | None] = ("http://127.0.0.1:9", None),
        machine: ReadMachine | None = None,
        **flags: Any,
    ) -> Stage:
        timing = {name: flags.pop(name) for name in list(flags) if name in times}
        llama = FakeLlama(tmp_path / "fake", **flags)
        range_ = {"instances.port_range": instance_ports(FIRST_PORT, FIRST_PORT + 59)}
        config = make_config(
            {**llama.settings, **range_, **(settings or {})},
            hub_endpoint=hub[0],
            hub_token=hub[1],
        )
        database = Database(config.data_dir / "llamactl.db")
        database.open()
        stage = Stage(config, database, llama, dataclasses.replace(QUICK, **timing), machine)
        stages.append(stage)
        stage.supervisor.start()
        return stage

    threads = set(threading.enumerate())
    descriptors = _descriptors()
    yield make
    for stage in stages:
        stage.supervisor.request_stop(hurry=True)
        stage.supervisor.join(PATIENCE)
        stage.database.close()
    assert not any(stage.processes() for stage in stages), "processes are left"
    left = [thread.name for thread in threading.enumerate() if thread not in threads]
    assert not left, f"threads are left: {left}"
    assert _descriptors() <= descriptors, "descriptors are left"


@pytest.fixture
def on_gpu(make_stage: StageFactory) -> GpuFactory:
    """Stages on a GPU of ``size`` GB: ``on_gpu("enforce", size=10, sizes={…}, load=60)``.

    ``sizes`` are those of instances that are there already.
    """

    def make(mode: str = "warn", size: int = 10, **flags: Any) -> GpuStage:
        machine = FakeMachine(size * GB)
        settings = {"instances.memory_admission": mode, **flags.pop("settings", {})}
        # Those of a former life come up as soon as the stage is there.
        sizes = flags.pop("sizes", {})
        machine.told.clear()
        return GpuStage(make_stage(settings, machine=machine, **flags), machine, sizes)

    return make


@pytest.fixture
def stage(make_stage: StageFactory) -> Stage:
    """A supervisor whose fakes behave."""
    return make_stage()


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").glob("*"))
