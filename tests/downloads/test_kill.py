"""SIGKILL at a random moment, and the next start goes on as if it had only blinked."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamactl.models.layout import FlatCache, HubCache
from tests.downloads.conftest import FILE, REPO
from tests.downloads.waiting import LONG
from tests.downloads.worker_process import CONNECTIONS, TUNING, leftovers
from tests.fakes.fake_hub import FakeHub, seeded_bytes

ROUNDS = 20
PAYLOAD = seeded_bytes(6_000_000, "kill")
#: Bytes per second on each connection: the whole takes a second, so that a kill finds it busy.
RATE = len(PAYLOAD) // CONNECTIONS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL")


def start(hub: FakeHub, folder: Path, *reference: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.downloads.worker_process", hub.endpoint, str(folder)]
    return subprocess.Popen([*command, *reference], stdout=subprocess.PIPE, text=True)


def kill_after(process: subprocess.Popen[str], seconds: float) -> bool:
    """Kill a process so long after it has started to work; False when it was done before."""
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "started\n"
        time.sleep(seconds)
        alive = process.poll() is None
        process.send_signal(signal.SIGKILL)
    return alive


def finish(process: subprocess.Popen[str]) -> None:
    with process:
        output, _ = process.communicate(timeout=LONG)
    assert (process.returncode, output) == (0, "started\ncompleted None\n")


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_killed_download_goes_on_from_its_bytes(tmp_path: Path, seed: int) -> None:
    moment = random.Random(seed).uniform(0.0, 1.4)
    with FakeHub() as hub:
        hub.add_repo(REPO, {FILE: PAYLOAD})
        hub.throttle(RATE)
        interrupted = kill_after(start(hub, tmp_path, f"{REPO}:Q4_K_M"), moment)
        hub.throttle(None)
        finish(start(hub, tmp_path))
        asked = sum(end + 1 - first for first, end in filter(None, _ranges(hub)))
    assert FlatCache(tmp_path / "caches" / "flat").path(REPO, FILE).read_bytes() == PAYLOAD
    assert _names(HubCache(tmp_path / "caches" / "hub").blobs(REPO)) == 1
    assert leftovers(tmp_path) == []
    if interrupted:
        assert asked - len(PAYLOAD) <= CONNECTIONS * TUNING.piece_size


def _ranges(hub: FakeHub) -> list[tuple[int, int] | None]:
    return [request.byte_range for request in hub.requests("cdn")]


def _names(folder: Path) -> int:
    return len(list(folder.iterdir()))


def test_three_kills_in_a_row_lose_no_more_than_three(tmp_path: Path) -> None:
    chance = random.Random("in a row")
    with FakeHub() as hub:
        hub.add_repo(REPO, {FILE: PAYLOAD})
        hub.throttle(RATE // 2)
        kill_after(start(hub, tmp_path, f"{REPO}:Q4_K_M"), chance.uniform(0.2, 0.6))
        for _ in range(2):
            kill_after(start(hub, tmp_path), chance.uniform(0.2, 0.6))
        hub.throttle(None)
        finish(start(hub, tmp_path))
        asked = sum(end + 1 - first for first, end in filter(None, _ranges(hub)))
    assert FlatCache(tmp_path / "caches" / "flat").path(REPO, FILE).read_bytes() == PAYLOAD
    assert asked - len(PAYLOAD) <= 3 * CONNECTIONS * TUNING.piece_size
