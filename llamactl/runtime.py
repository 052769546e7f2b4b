"""All services of one server process, built together, started together, stopped in order.

Nothing starts at import or in the constructor. ``start`` opens the database and starts the threads;
``request_stop`` may be called from a signal handler and returns at once; ``join`` waits until
everything has ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llamactl.access.audit import Audit
from llamactl.access.keys import Keys
from llamactl.access.sessions import Sessions
from llamactl.config import Config
from llamactl.database import Database
from llamactl.downloads.offers import Offers
from llamactl.downloads.queue import DownloadQueue
from llamactl.errors import ConfigError
from llamactl.gateway import Gateway
from llamactl.hub.client import HubClient
from llamactl.hub.tokens import current_token
from llamactl.instances.supervisor import ResolvedModel, Supervisor
from llamactl.locks import FileLock
from llamactl.models.cache import ModelCache
from llamactl.models.reference import ModelRef

log = logging.getLogger(__name__)

#: Seconds that running streams get before they are cut.
STREAM_GRACE = 10.0
#: Seconds that everything gets to end once the streams were cut.
STOP_LIMIT = 25.0
#: Seconds that a new process waits for the one that it replaces.
TAKEOVER_LIMIT = 50.0


class Runtime:
    """The services, and the lock that keeps a second process from starting its own."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started_at = 0.0
        self.database = Database(config.database_file)
        self.hub = HubClient(
            config.hub.endpoint, lambda: current_token(config.hub), config.hub.offline
        )
        self.cache = ModelCache(
            config.llama_cpp.cache_dir,
            config.llama_cpp.hub_dir,
            self.database,
            in_use=self._users_of,
        )
        self.downloads = DownloadQueue(config, self.database, self.hub, self.cache)
        self.offers = Offers(self.hub, self.cache)
        self.supervisor = Supervisor(config, self.database, self._resolve_model)
        self.keys = Keys(config, self.database)
        self.sessions = Sessions(config, self.database)
        self.audit = Audit(self.database)
        self.gateway = Gateway(config, self.supervisor, self.keys)
        self._lock = FileLock(config.data_dir / "worker.lock")
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        # From here on an instance may die without a stream that ends for no reason.
        self._streams_told = threading.Event()
        self._drain: threading.Thread | None = None

    def start(self, caches_read: Callable[[], object] = lambda: None) -> None:
        """Take the data directory, open the database, start every thread.

        ``caches_read`` is called, in some thread, once the models were read from the disk. Waits
        for a process that is being replaced. Raises ``ConfigError`` when the directory cannot be
        had.
        """
        deadline = time.monotonic() + TAKEOVER_LIMIT
        while not self._lock.acquire():
            if time.monotonic() > deadline:
                raise ConfigError(f"{self._lock.path} is held by another llamactl")
            time.sleep(0.1)
        self.database.open()
        self.cache.start(caches_read)
        self.keys.start()
        self.gateway.start()
        self.supervisor.start()
        self.downloads.start()
        self.started_at = time.time()

    def request_stop(self, *, hurry: bool = False) -> None:
        """Begin to stop; with ``hurry`` without any grace. Returns at once."""
        if hurry:
            self._hurry.set()
        if self._stopping.is_set():
            if hurry and self._streams_told.is_set():
                self.supervisor.request_stop(hurry=True)
            return
        self._stopping.set()
        # daemon=False is explicit: a thread inherits the trait of the one that starts it, and the
        # interpreter does not wait for daemons.
        self._drain = threading.Thread(target=self._stop, name="llamactl-stop", daemon=False)
        self._drain.start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until everything has ended; False when ``timeout`` seconds did not suffice."""
        if self._drain is None:
            return not self._stopping.is_set()
        self._drain.join(timeout)
        return not self._drain.is_alive()

    def _stop(self) -> None:
        self.downloads.request_stop()
        self.gateway.request_stop()
        if not self._hurry.is_set():
            self.gateway.drain(STREAM_GRACE, self._hurry)
        deadline = time.monotonic() + STOP_LIMIT
        self.gateway.cut()
        self._streams_told.set()
        self.supervisor.request_stop(hurry=self._hurry.is_set())
        self.downloads.join(max(1.0, (deadline - time.monotonic()) / 2))
        self.supervisor.join(max(1.0, deadline - time.monotonic()))
        self.cache.stop(max(1.0, deadline - time.monotonic()))
        self.keys.stop()
        self.database.close()
        self._lock.release()

    def _users_of(self, paths: Sequence[Path]) -> list[str]:
        return self.supervisor.users_of(paths)

    def _resolve_model(self, reference: str) -> ResolvedModel:
        ref = ModelRef.parse(reference)
        return ResolvedModel(self.cache.gguf_path(ref), self.cache.mmproj_path(ref))
