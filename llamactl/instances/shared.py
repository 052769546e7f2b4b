"""What all instances of one supervisor share: services, times, and the one lock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from llamactl.config import Config
from llamactl.instances.backend import Backend
from llamactl.instances.modelfiles import ResolveModel
from llamactl.instances.ports import Ports
from llamactl.instances.room import Room
from llamactl.instances.spawner import Spawner
from llamactl.instances.store import InstanceStore
from llamactl.instances.watcher import Watcher


@dataclass(frozen=True)
class Timing:
    """The times that decide, in seconds; tests shorten them."""

    #: Between two looks at a server that is coming up.
    poll: float = 0.025
    #: For one answer of a server that is coming up.
    probe: float = 2.0
    #: Between two looks at the health of a running one, and for its answer.
    health_interval: float = 15.0
    health_answer: float = 5.0
    #: Without a byte of output after which a load is given up.
    load_patience: float = 1800.0
    #: A life of this length forgets the crashes before it.
    stable: float = 60.0
    #: The longest back-off between two restarts.
    longest_backoff: float = 60.0
    #: For requests to end when their instance is stopped.
    drain: float = 5.0
    #: Between SIGTERM and SIGKILL.
    grace: float = 10.0
    #: For the memory of those that stopped for a newcomer to be free again.
    memory_back: float = 5.0
    #: Between two looks whether it is.
    memory_poll: float = 0.1


@dataclass
class Shared:
    """``lock`` guards every instance's fields and everything below it; never held across I/O."""

    config: Config
    store: InstanceStore
    resolve_model: ResolveModel
    backend: Backend
    spawner: Spawner
    watcher: Watcher
    ports: Ports
    room: Room
    timing: Timing
    mark_prefix: str
    lock: threading.RLock
    #: No new starts: the server goes down. ``hurry``: no more grace either.
    stopping: bool = False
    hurry: bool = False
    changes: int = 0
    #: Called with the lock held whenever somebody might get a place.
    admit: Callable[[], None] = lambda: None
