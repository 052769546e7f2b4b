"""A hub on loopback, both caches, and a queue with small pieces and short times between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamactl.database import Database
from llamactl.downloads.queue import DownloadQueue
from llamactl.downloads.snapshots import JobSnapshot
from llamactl.downloads.tuning import KIB, Tuning
from llamactl.hub.client import HubClient
from llamactl.models.cache import ModelCache
from llamactl.models.reference import ModelRef
from llamactl.secret import Secret
from tests.conftest import ConfigFactory
from tests.downloads.waiting import LONG, eventually
from tests.fakes.fake_hub import FakeHub, Request, seeded_bytes

REPO = "org/name-GGUF"
FILE = "m-Q4_K_M.gguf"
REF = ModelRef(REPO, "Q4_K_M")
PAYLOAD = seeded_bytes(2_000_000, 1)
#: Bytes per second on each of four connections: whoever sees a part of the payload durable, late as
#: that may be on a busy disk, finds it on the way still.
SLOW = 40_000

SMALL = Tuning(
    piece_size=256 * KIB,
    request_size=192 * KIB,
    longest_request=192 * KIB,
    read_size=32 * KIB,
    record_interval=0.02,
    connect_timeout=5.0,
    shown_as_stalled=0.1,
    first_pause=0.02,
    longest_pause=0.1,
    widen_after=0.5,
    steal_above=60.0,
)


class Site:
    """Everything that a download touches. ``start`` may be called again after ``stop``."""

    def __init__(self, hub: FakeHub, make_config: ConfigFactory) -> None:
        self.hub = hub
        self._make_config = make_config
        self.tuning = SMALL
        self.settings: dict[str, object] = {
            "downloads.connections": 4,
            # No pause of a busy machine is a stall, whose cure would ask for bytes again.
            "downloads.stall_timeout": 60,
            "downloads.retry_limit": 8,
        }
        self.token: str | None = None
        self._queue: DownloadQueue | None = None
        self._database: Database | None = None
        self._cache: ModelCache | None = None

    @property
    def queue(self) -> DownloadQueue:
        return self._queue or self.start()

    @property
    def cache(self) -> ModelCache:
        assert self._cache is not None, "nothing is started"
        return self._cache

    def start(self) -> DownloadQueue:
        config = self._make_config(self.settings, hub_endpoint=self.hub.endpoint)
        self.flat, self.root = config.llama_cpp.cache_dir, config.llama_cpp.hub_dir
        self._database = Database(config.data_dir / "llamactl.db")
        self._database.open()
        self._cache = ModelCache(self.flat, self.root, self._database, in_use=lambda paths: [])
        secret = None if self.token is None else Secret(self.token)
        client = HubClient(self.hub.endpoint, lambda: secret, False, backoff=0.01)
        self._queue = DownloadQueue(config, self._database, client, self._cache, tuning=self.tuning)
        self._queue.start()
        return self._queue

    def stop(self) -> None:
        if self._queue is not None and self._database is not None:
            self._queue.request_stop()
            assert self._queue.join(LONG)
            self._database.close()
        self._queue = None

    def submit(self, ref: ModelRef = REF) -> JobSnapshot:
        return self.queue.submit(ref)

    def download(self, ref: ModelRef = REF) -> JobSnapshot:
        """Submit and wait for the end."""
        return self.queue.wait(self.submit(ref).job.id, LONG)

    def until(self, job_id: str, holds: Callable[[JobSnapshot], bool]) -> JobSnapshot:
        """The job's picture once ``holds`` is true of it."""
        return eventually(lambda: self.queue.job(job_id), holds)

    def bytes_of(self, filename: str = FILE, repo_id: str = REPO) -> bytes:
        return self.cache.flat.path(repo_id, filename).read_bytes()

    def leftovers(self) -> list[Path]:
        """What no finished download may leave behind."""
        return [path for top in (self.flat, self.root) for path in top.rglob("*.incomplete")]

    def byte_requests(self) -> list[Request]:
        return self.hub.requests("cdn")

    def assert_complete(self, job: JobSnapshot, payload: bytes = PAYLOAD) -> None:
        assert (job.job.status, job.job.error) == ("completed", None)
        assert self.bytes_of() == payload
        assert job.job.model_path == str(self.cache.flat.path(REPO, FILE))
        assert job.progress.bytes_downloaded == job.progress.total_bytes
        assert self.leftovers() == []


def slow_job(site: Site) -> str:
    """A job in the middle of its bytes, and slow enough to stay there."""

    def is_running(seen: JobSnapshot) -> bool:
        return seen.job.status == "downloading" and seen.progress.bytes_downloaded > 100_000

    site.hub.throttle(SLOW)
    job = site.submit()
    site.until(job.job.id, is_running)
    return job.job.id


def add_models(hub: FakeHub, count: int, size: int = 50_000) -> list[ModelRef]:
    """Repositories of one model each."""
    for number in range(count):
        hub.add_repo(f"many/model{number}", {FILE: seeded_bytes(size, number)})
    return [ModelRef(f"many/model{number}", "Q4_K_M") for number in range(count)]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub with one repository of one model."""
    with FakeHub() as running:
        running.add_repo(REPO, {FILE: PAYLOAD, "README.md": b"# A model\n"})
        yield running
        assert running.leaks == []


@pytest.fixture
def site(hub: FakeHub, make_config: ConfigFactory) -> Iterator[Site]:
    before = set(threading.enumerate())
    running = Site(hub, make_config)
    yield running
    running.stop()
    hub.clear_faults()
    eventually(
        lambda: {t.name for t in set(threading.enumerate()) - before if _is_ours(t)},
        lambda names: not names,
    )


def _is_ours(thread: threading.Thread) -> bool:
    return thread.name.startswith("download")
