"""Random operations and random kills from several threads, seeded: nothing illegal, nothing left.

``LLAMACTL_TEST_STORM_SECONDS`` makes it longer, ``LLAMACTL_TEST_STORM_SEED`` another one.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llamactl.errors import Interrupted, LlamactlError
from llamactl.instances.states import TRANSITIONS, Event, Life, Status
from tests.instances.conftest import PATIENCE, Stage, StageFactory, eventually

SECONDS = float(os.environ.get("LLAMACTL_TEST_STORM_SECONDS", "5"))
SEED = int(os.environ.get("LLAMACTL_TEST_STORM_SEED", "1"))
NAMES = ["a", "b", "c", "d", "e"]
PLACES = 3
#: Megabytes that the process may have grown between a fifth of the storm and its end.
GROWTH = 24
FLAGS = [
    "",
    "--fake-load 0.1",
    "--fake-ignore-term",
    "--fake-fork",
    "--fake-daemon --fake-ignore-term",
    "--fake-exit-after 0.3 --fake-exit-code 1",
    "--fake-exit-after 0.2 --fake-signal SIGSEGV",
    "--fake-fail 'no reason'",
    "--fake-listen-after 0.2",
    "--fake-no-listen",
    "--fake-spam 300000",
    "--fake-health-hang",
    "--fake-slots silent",
]


class Storm:
    """One of several who do as they like."""

    def __init__(self, stage: Stage, seed: int, ended: threading.Event) -> None:
        self._stage = stage
        self._supervisor = stage.supervisor
        self._random = random.Random(seed)
        self._ended = ended
        self.unexpected: list[BaseException] = []
        self.done = 0

    def run(self) -> None:
        doings: tuple[Callable[[str], None], ...] = (
            *(self.start, self.stop, self.restart, self.change, self.kill, self.kill_all),
            *(self.use, self.use, self.use, self.follow, self.look),
        )
        while not self._ended.is_set():
            try:
                self._random.choice(doings)(self._random.choice(NAMES))
            except (LlamactlError, Interrupted):
                pass  # refusals are answers
            except BaseException as error:
                self.unexpected.append(error)
                raise
            self.done += 1
            time.sleep(self._random.random() * 0.03)

    def start(self, name: str) -> None:
        self._supervisor.start_instance(name, wait=self._random.choice([None, 0.2]))

    def stop(self, name: str) -> None:
        self._supervisor.stop_instance(name, wait=self._random.choice([None, 0.2]))

    def restart(self, name: str) -> None:
        self._supervisor.restart_instance(name)

    def use(self, name: str) -> None:
        """A request: it starts the instance, evicts another, or leaves before it is served."""
        patience = time.monotonic() + self._random.choice([0.05, 0.5, 2.0])

        def gone() -> bool:
            return time.monotonic() > patience

        with self._supervisor.lease(name, timeout=3.0, cancelled=gone) as lease:
            assert self._supervisor.get(name).in_flight > 0
            if self._random.random() < 0.3:
                lease.passed_on()
            time.sleep(self._random.random() * 0.1)

    def change(self, name: str) -> None:
        if self._random.random() < 0.2:
            self._supervisor.delete(name)
            self._stage.create(name, restart_delay=0)
        model = self._random.choice([self._stage.llama.model] * 9 + [Path("/no/such.gguf")])
        options = self._stage.options(
            **self._stage.fake(self._random.choice(FLAGS)),
            backend_options={"model": str(model)},
            restart_delay=self._random.choice([0, 0.3]),
            idle_timeout=self._random.choice([0, 0.002]),
            group=self._random.choice([None, "pair"]),
        )
        self._supervisor.update(name, options)

    def kill(self, name: str) -> None:
        pid = self._stage.get(name).pid
        if pid is not None:
            number = self._random.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_all(self, _name: str) -> None:
        """Whatever is marked as ours, also what a child has started."""
        if self._random.random() < 0.1:
            for pid in self._stage.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def follow(self, name: str) -> None:
        """Read a log from its last lines on, for a moment."""
        until = time.monotonic() + 0.2
        for _ in self._supervisor.follow_logs(name, 5):
            if time.monotonic() > until or self._random.random() < 0.2:
                break

    def look(self, name: str) -> None:
        self._supervisor.instances()
        self._supervisor.figures()
        self._supervisor.logs(name, 5)
        self._supervisor.plan(name)
        self._supervisor.users_of([self._stage.llama.model])


class Watch:
    """Looks on during the whole storm; ``wrong`` has what must not be."""

    def __init__(self, stage: Stage, ended: threading.Event) -> None:
        self._stage = stage
        self._ended = ended
        self.wrong: list[str] = []
        self.memory: list[int] = []

    def run(self) -> None:
        while not self._ended.is_set():
            snapshots = self._stage.supervisor.instances()
            having = [each for each in snapshots if each.status in ("running", "restarting")]
            if len(having) > PLACES:
                self.wrong.append(f"{len(having)} have a place")
            ports = [each.port for each in snapshots if each.pid is not None]
            if len(ports) != len(set(ports)):
                self.wrong.append(f"a port twice: {ports}")
            self.memory.append(resident_megabytes())
            time.sleep(0.05)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> set[tuple[Status, Event]]:
    """Every transition that was tried. One that the table does not have raises, in its thread."""
    tried: set[tuple[Status, Event]] = set()
    apply = Life.after

    def noted(life: Life, event: Event, **changes: Any) -> Life:
        tried.add((life.status, event))
        return apply(life, event, **changes)

    monkeypatch.setattr(Life, "after", noted)
    return tried


@pytest.fixture
def no_thread_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    failed: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda each: failed.append(repr(each)))
    yield
    assert failed == []


@pytest.mark.usefixtures("no_thread_fails")
@pytest.mark.timeout(120 + 3 * SECONDS)
def test_a_storm_does_nothing_illegal_and_leaves_nothing(
    make_stage: StageFactory,
    caplog: pytest.LogCaptureFixture,
    taken: set[tuple[Status, Event]],
) -> None:
    caplog.set_level(logging.ERROR)  # otherwise the records are what grows
    stage = make_stage(
        {
            "instances.max_running_instances": PLACES,
            "instances.group_limits": {"pair": 2},
            "instances.log_rotation_max_size": 100_000,
            "instances.wedged_after": 0.5,
            "instances.restart_wedged": True,
        },
        grace=0.2,
        drain=0.05,
        health_answer=0.1,
        load_patience=1.0,
    )
    for name in NAMES:
        stage.create(name, restart_delay=0)
    threads_before, open_before = threading.active_count(), open_descriptors()
    ended = threading.Event()
    storms = [Storm(stage, SEED * 100 + number, ended) for number in range(4)]
    watch = Watch(stage, ended)
    works = [*(storm.run for storm in storms), watch.run]
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    eventually(lambda: sum(storm.done for storm in storms) > 10 * SECONDS, "a storm")
    ended.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a deadlock"
    assert [storm.unexpected for storm in storms] == [[]] * 4
    for name in NAMES:
        stage.supervisor.stop_instance(name)
    at_rest = {"stopped", "failed"}
    eventually(lambda: {each.status for each in stage.supervisor.instances()} <= at_rest, "rest")
    eventually(lambda: not stage.processes(), "the end of every process")
    eventually(lambda: threading.active_count() <= threads_before, "the end of every thread")
    eventually(lambda: open_descriptors() <= open_before, "the end of every descriptor")
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert watch.wrong == []
    assert taken <= set(TRANSITIONS), "an illegal transition was tried"
    if SECONDS >= 300:
        assert taken == set(TRANSITIONS), "the storm has seen every transition"
        settled = max(watch.memory[: len(watch.memory) // 5])
        gc.collect()
        assert resident_megabytes() <= settled + GROWTH, watch.memory[:: len(watch.memory) // 20]
    left = stage.supervisor.instances()
    assert all((each.in_flight, each.pid, each.port) == (0, None, None) for each in left)
    assert all(each.waiters == 0 and each.unseen == 0 for each in stage.supervisor._registry)
    assert stage.supervisor._shared.ports._reserved == set()
    assert stage.database.read("SELECT * FROM runs") == []


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_megabytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 10**6
