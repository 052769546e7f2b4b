"""Random operations and random kills from several threads, seeded: nothing illegal, nothing left.

``LLAMACTL_TEST_STORM_SECONDS`` makes it longer, ``LLAMACTL_TEST_STORM_SEED`` another one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import time

import pytest

from llamactl.errors import LlamactlError
from tests.instances.conftest import PATIENCE, Stage, StageFactory, eventually

SECONDS = float(os.environ.get("LLAMACTL_TEST_STORM_SECONDS", "5"))
SEED = int(os.environ.get("LLAMACTL_TEST_STORM_SEED", "1"))
NAMES = ["a", "b", "c", "d", "e"]
FLAGS = [
    "",
    "--fake-load 0.1",
    "--fake-ignore-term",
    "--fake-daemon",
    "--fake-exit-after 0.3 --fake-exit-code 1",
    "--fake-fail 'no reason'",
    "--fake-listen-after 0.2",
]


class Storm:
    """One of several who do as they like."""

    def __init__(self, stage: Stage, seed: int, ended: threading.Event) -> None:
        self._stage = stage
        self._random = random.Random(seed)
        self._ended = ended
        self.unexpected: list[BaseException] = []
        self.done = 0

    def run(self) -> None:
        doings = (
            self.start,
            self.stop,
            self.restart,
            self.use,
            self.use,
            self.change,
            self.kill,
            self.look,
        )
        while not self._ended.is_set():
            try:
                self._random.choice(doings)(self._random.choice(NAMES))
            except LlamactlError:
                pass  # refusals are answers
            except Exception as error:
                self.unexpected.append(error)
                raise
            self.done += 1
            time.sleep(self._random.random() * 0.03)

    def start(self, name: str) -> None:
        self._stage.supervisor.start_instance(name, wait=self._random.choice([None, 0.2]))

    def stop(self, name: str) -> None:
        self._stage.supervisor.stop_instance(name, wait=self._random.choice([None, 0.2]))

    def restart(self, name: str) -> None:
        self._stage.supervisor.restart_instance(name)

    def use(self, name: str) -> None:
        with self._stage.supervisor.lease(name, timeout=0.5):
            time.sleep(self._random.random() * 0.1)

    def change(self, name: str) -> None:
        if self._random.random() < 0.2:
            self._stage.supervisor.delete(name)
            self._stage.create(name, restart_delay=0)
        flags = self._random.choice(FLAGS)
        options = self._stage.options(
            **self._stage.fake(flags), restart_delay=0, idle_timeout=self._random.choice([0, 0.002])
        )
        self._stage.supervisor.update(name, options)

    def kill(self, name: str) -> None:
        pid = self._stage.get(name).pid
        if pid is not None:
            number = self._random.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def look(self, name: str) -> None:
        self._stage.supervisor.instances()
        self._stage.supervisor.logs(name, 5)
        self._stage.supervisor.users_of([self._stage.llama.model])


@pytest.mark.timeout(60 + 3 * SECONDS)
def test_a_storm_does_nothing_illegal_and_leaves_nothing(
    make_stage: StageFactory, caplog: pytest.LogCaptureFixture
) -> None:
    stage = make_stage({"instances.max_running_instances": 3}, grace=0.2, drain=0.05)
    for name in NAMES:
        stage.create(name, restart_delay=0)
    ended = threading.Event()
    storms = [Storm(stage, SEED * 100 + number, ended) for number in range(4)]
    threads = [threading.Thread(target=storm.run) for storm in storms]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    ended.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a deadlock"
    assert [storm.unexpected for storm in storms] == [[]] * 4
    assert sum(storm.done for storm in storms) > 20 * SECONDS
    for name in NAMES:
        stage.supervisor.stop_instance(name)
        stage.until("stopped", name) if stage.get(name).status != "failed" else None
    eventually(lambda: not stage.processes())
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert all(each.in_flight == 0 for each in stage.supervisor.instances())
    assert stage.supervisor._shared.ports._reserved == set()
    assert stage.database.read("SELECT * FROM runs") == []
