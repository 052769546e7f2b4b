"""Random faults, pauses, restarts and kills, seeded: nothing lost, wrong or left behind.

``LLAMACTL_TEST_STORM=200`` makes it that many rounds, ``LLAMACTL_TEST_STORM_SEED=5000`` others.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamactl.errors import InvalidState
from llamactl.models.layout import FlatCache
from llamactl.models.reference import ModelRef
from tests.downloads.conftest import Site
from tests.downloads.waiting import LONG
from tests.downloads.worker_process import leftovers
from tests.fakes.fake_hub import FakeHub, seeded_bytes

ROUNDS = int(os.environ.get("LLAMACTL_TEST_STORM", "8"))
FIRST = int(os.environ.get("LLAMACTL_TEST_STORM_SEED", "0"))
REF = ModelRef("storm/set", "Q4_K_M")
NAMES = [f"set-Q4_K_M-0000{number}-of-00003.gguf" for number in (1, 2, 3)]

#: A gust spoils some requests in one way; none lasts for ever.
GUSTS: tuple[tuple[str, str, dict[str, int | str]], ...] = (
    ("cdn", "cut", {"after": 200_000, "times": 9}),
    ("cdn", "cut", {"after": 1, "times": 4, "ending": "fin"}),
    ("cdn", "chunked", {"after": 90_000, "times": 4}),
    ("cdn", "no_length", {"after": 90_000, "times": 4}),
    ("cdn", "ignore_range", {"times": 3, "nth": 9}),
    ("cdn", "shifted", {"times": 3}),
    ("cdn", "wrong_total", {"times": 3}),
    ("cdn", "gzip", {"times": 3}),
    ("cdn", "flip", {"after": 9_000, "times": 1, "nth": 20}),
    ("cdn", "stall", {"after": 90_000, "times": 1, "nth": 9}),
    ("cdn", "delay", {"times": 1, "nth": 9}),
    ("cdn", "status", {"status": 403, "times": 3}),
    ("cdn", "status", {"status": 503, "times": 5}),
    ("hub", "status", {"status": 502, "times": 3}),
    ("hub", "drop", {"times": 3}),
)


def blow(hub: FakeHub, gust: tuple[str, str, dict[str, int | str]], chance: random.Random) -> None:
    """Let a gust go, each of its figures up to the one that is given."""
    where, kind, most = gust
    drawn = {
        name: chance.randrange(1, value + 1) if name in ("after", "times", "nth") else value
        for name, value in most.items()
        if isinstance(value, int)
    } | {name: value for name, value in most.items() if isinstance(value, str)}
    hub.fault("hub" if where == "hub" else "cdn", ".", kind=kind, **drawn)


def contents(seed: int) -> dict[str, bytes]:
    chance = random.Random(seed)
    return {name: seeded_bytes(chance.randrange(1, 1_500_000), f"{seed} {name}") for name in NAMES}


@pytest.mark.parametrize("seed", range(FIRST, FIRST + ROUNDS))
def test_a_storm_is_weathered(site: Site, seed: int) -> None:
    chance, payloads = random.Random(seed), contents(seed)
    site.settings["downloads.stall_timeout"] = 0.4
    site.hub.add_repo(REF.repo_id, payloads)
    site.hub.throttle(chance.choice([None, 500_000, 2_000_000]))
    for gust in chance.sample(GUSTS, 5):
        blow(site.hub, gust, chance)
    job_id = site.submit(REF).job.id
    for _ in range(chance.randrange(6)):
        time.sleep(chance.uniform(0, 0.3))
        disturb(site, job_id, chance)
    site.hub.throttle(None)
    job = site.queue.wait(settled(site, job_id), LONG)
    if job.job.status == "failed":
        # Two storms may meet in one job; a calm retry must then do.
        site.hub.clear_faults()
        job = site.queue.wait(site.queue.retry(job_id).job.id, LONG)
    assert (job.job.status, job.job.error) == ("completed", None)
    for name, content in payloads.items():
        assert site.bytes_of(name, REF.repo_id) == content
    assert site.leftovers() == []


def disturb(site: Site, job_id: str, chance: random.Random) -> None:
    status = site.queue.job(job_id).job.status
    what = chance.choice(["restart", "pause", "gust", "expire"])
    if what == "restart":
        site.stop()
        site.start()
    elif what == "pause" and status in ("queued", "downloading"):
        settled(site, job_id, pause=True)
    elif what == "gust":
        blow(site.hub, chance.choice(GUSTS), chance)
    elif what == "expire":
        site.hub.expire_urls()


def settled(site: Site, job_id: str, *, pause: bool = False) -> str:
    """Let the job go on if it had paused, or pause it unless it has just ended."""
    with contextlib.suppress(InvalidState):
        if pause:
            site.queue.pause(job_id)
        if site.queue.job(job_id).job.status == "paused":
            site.queue.resume(job_id)
    return job_id


@pytest.mark.parametrize("seed", range(FIRST, FIRST + max(2, ROUNDS // 3)))
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_kills_in_a_storm_lose_nothing(tmp_path: Path, seed: int) -> None:
    chance, payloads = random.Random(seed), contents(seed)
    with FakeHub() as hub:
        hub.add_repo(REF.repo_id, payloads)
        hub.throttle(600_000)
        command = [sys.executable, "-m", "tests.downloads.worker_process", hub.endpoint]
        for _ in range(3):
            for gust in chance.sample(GUSTS[:4], 2):
                blow(hub, gust, chance)
            with subprocess.Popen([*command, str(tmp_path), str(REF)], stdout=-1) as process:
                assert process.stdout is not None and process.stdout.readline()
                time.sleep(chance.uniform(0, 0.5))
                process.send_signal(signal.SIGKILL)
        hub.clear_faults()
        hub.throttle(None)
        done = subprocess.run([*command, str(tmp_path), str(REF)], stdout=-1, timeout=LONG)
    assert done.returncode == 0
    flat = FlatCache(tmp_path / "caches" / "flat")
    for name, content in payloads.items():
        assert flat.path(REF.repo_id, name).read_bytes() == content
    assert leftovers(tmp_path) == []
