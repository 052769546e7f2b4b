"""SIGKILL at a random moment, and the next start goes on as if it had only blinked."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamactl.downloads.byte_ranges import ByteRanges
from llamactl.downloads.partfile import recorded_bytes
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


def kill_after(process: subprocess.Popen[str], seconds: float) -> None:
    """Kill a process so long after it has started to work, if it is not done before."""
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "started\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)


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
        kill_after(start(hub, tmp_path, f"{REPO}:Q4_K_M"), moment)
        kept = recorded(tmp_path)
        asked = asked_to_finish(tmp_path)
    asked_before = ranges_asked(hub).total
    assert FlatCache(tmp_path / "caches" / "flat").path(REPO, FILE).read_bytes() == PAYLOAD
    assert _names(HubCache(tmp_path / "caches" / "hub").blobs(REPO)) == 1
    assert leftovers(tmp_path) == []
    assert asked <= len(PAYLOAD) - kept
    assert asked_before + asked - len(PAYLOAD) <= CONNECTIONS * TUNING.piece_size


def recorded(folder: Path) -> int:
    """How many bytes of the partial the next start may rely on."""
    oid = hashlib.sha256(PAYLOAD).hexdigest()
    found = [recorded_bytes(path, len(PAYLOAD), oid) for path in leftovers(folder)]
    return max(found, default=0)


def asked_to_finish(folder: Path) -> int:
    """Finish what was begun; how many bytes were asked for to that end, each counted once."""
    # Another hub of the same content: the first may still read what a killed process has sent.
    with FakeHub() as again:
        again.add_repo(REPO, {FILE: PAYLOAD})
        finish(start(again, folder))
    return ranges_asked(again).total


def ranges_asked(hub: FakeHub) -> ByteRanges:
    asked = ByteRanges()
    for request in hub.requests("cdn"):
        assert request.byte_range is not None
        asked.add(request.byte_range[0], request.byte_range[1] + 1)
    return asked


def _names(folder: Path) -> int:
    return len(list(folder.iterdir()))


def test_three_kills_in_a_row_lose_nothing_that_was_recorded(tmp_path: Path) -> None:
    chance = random.Random("in a row")
    with FakeHub() as hub:
        hub.add_repo(REPO, {FILE: PAYLOAD})
        hub.throttle(RATE // 8)
        kill_after(start(hub, tmp_path, f"{REPO}:Q4_K_M"), chance.uniform(0.2, 0.6))
        kept = recorded(tmp_path)
        for _ in range(2):
            kill_after(start(hub, tmp_path), chance.uniform(0.2, 0.6))
            assert recorded(tmp_path) >= kept
            kept = recorded(tmp_path)
        asked = asked_to_finish(tmp_path)
    assert FlatCache(tmp_path / "caches" / "flat").path(REPO, FILE).read_bytes() == PAYLOAD
    assert asked <= len(PAYLOAD) - kept
