"""One instance: its record, its leases, and the transitions that others may ask for.

All fields are guarded by the supervisor's lock. What takes time (making a process, waiting for it,
ending it) is done by the thread in ``owner.py``, which is there only while the instance is not at
rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from llamactl.errors import InstanceNotRunning, LlamactlError, StartFailed, StartTimeout
from llamactl.instances.admission import Amount, Demand
from llamactl.instances.diagnosis import Diagnosis
from llamactl.instances.figures import Meter, Source
from llamactl.instances.health import Probe
from llamactl.instances.logs import InstanceLog
from llamactl.instances.options import Options
from llamactl.instances.owner import Owner
from llamactl.instances.run import HOST
from llamactl.instances.shared import Shared
from llamactl.instances.snapshot import InstanceSnapshot, sentences
from llamactl.instances.states import AT_REST, Event, Life, Status, backoff
from llamactl.instances.usage import User
from llamactl.secret import Secret


class Instance:
    """Its methods want the lock held, unless they say otherwise."""

    def __init__(
        self, shared: Shared, number: int, name: str, options: Options, created: float
    ) -> None:
        self.shared = shared
        self.id = number
        self.name = name
        self.options = options
        self.created = created
        self.life = Life()
        self.health: str | None = None
        self.key: Secret | None = None
        self.files: tuple[Path, ...] = ()
        #: Served requests, and requests that wait for it to be served.
        self.in_flight = 0
        self.waiters = 0
        #: Requests that were given a lease since the server started.
        self.requests = 0
        self.meter = Meter()
        #: Parts of answers that were passed on, and leases whose answers others pass on.
        self.passed_on = 0
        self.unseen = 0
        #: Monotonic; unix seconds. ``ready_at`` (monotonic): since then it runs.
        self.last_used = 0.0
        self.last_used_at: float | None = None
        self.ready_at = 0.0
        #: It ran when the server went down, and was not started since; it was started for that.
        self.wanted_back = False
        self.restored = False
        #: While it stops: it is to start again afterwards.
        self.again = False
        #: It was stopped for another reason than the end of the server.
        self.stays_down = False
        #: How often a person stopped it, so that those who wait notice.
        self.stops = 0
        #: Whom it stops for, and for whose ends it waits.
        self.successor: Instance | None = None
        self.predecessors: set[Instance] = set()
        #: The memory that it takes, by the last estimate, and what must be free before it starts.
        self.demand: Demand | None = None
        self.awaited = Amount()
        #: Failures in a row, and when a request may try again (monotonic).
        self.failures = 0
        self.retry_at = 0.0
        #: Why its stored options cannot be used, if so.
        self.unusable = ""
        self.deleted = False
        self.changed = threading.Condition(shared.lock)
        self.log = InstanceLog(
            shared.config.instances.logs_dir / f"{name}.log",
            max_size=shared.config.instances.log_rotation_max_size,
            backups=shared.config.instances.log_backups,
        )
        self._owner: Owner | None = None
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> Status:
        return self.life.status

    @property
    def at_rest(self) -> bool:
        return self.life.status in AT_REST

    @property
    def has_place(self) -> bool:
        """Whether it counts among those that run; one that stops for another does not any more."""
        return not self.at_rest and self.successor is None

    def apply(self, event: Event, **changes: Any) -> None:
        """Take one transition of the table, and tell everybody who waits."""
        self.life = self.life.after(event, **changes)
        self.shared.changes += 1
        self.changed.notify_all()

    def begin(
        self, victims: Iterable[Instance] = (), *, restarts: int = 0, restored: bool = False
    ) -> None:
        """Go to ``starting``; after all ``victims`` have stopped, if there are any."""
        self.restored, self.wanted_back = restored, False
        self.apply("start", exit_code=None, error=None, hint="", log_lines=(), restarts=restarts)
        self.health = "loading"
        self.again = self.stays_down = False
        for victim in victims:
            self.predecessors.add(victim)
            victim.successor = self
        for victim in tuple(self.predecessors):
            victim.stop()
        if self._owner is None:
            self._start_owner()
        self.ring()

    def _start_owner(self) -> None:
        try:
            owner = Owner(self)
        except OSError as error:
            self.give_up(StartFailed(f"the server can open no more files: {error.strerror}"))
            return
        thread = threading.Thread(target=owner.work, name=f"instance-{self.name}", daemon=True)
        self._owner, self._thread = owner, thread
        try:
            thread.start()
        except RuntimeError as error:
            self._owner = self._thread = None
            owner.bell.close()
            self.give_up(StartFailed(f"the server can start no more threads: {error}"))

    def stop(self, *, again: bool = False) -> None:
        """Go towards ``stopped``; with ``again``, to ``starting`` afterwards."""
        self.again = again and self.successor is None
        if not self.again and not self.shared.stopping:
            self.stays_down = True
        if self.status in ("starting", "running"):
            self.apply("stop")
        elif self.status in ("restarting", "failed"):
            self.apply("stop", error=None, hint="", log_lines=(), restarts=0)
            self.came_to_rest()
        self.ring()

    def came_to_rest(self, *, for_good: bool = True) -> None:
        """Its process is gone; if that is for good, who waits for its place may go on."""
        self.health = None
        self.key = None
        self.files = ()
        self.shared.room.release(self.name)
        self.awaited = Amount()
        for victim in self.predecessors:
            victim.successor = None
        self.predecessors.clear()
        if self.successor is not None:
            self.successor.predecessors.discard(self)
            self.successor.ring()
            self.successor = None
        if for_good:
            self.shared.admit()

    def set_process(self, pid: int, port: int, key: Secret, files: tuple[Path, ...]) -> None:
        """It has a process, which is not ready yet."""
        self.life = replace(self.life, pid=pid, port=port)
        self.key = key
        self.files = files
        self.shared.changes += 1

    def became_ready(self) -> None:
        """Go to ``running``: its own process answers."""
        self.health = "ok"
        self.ready_at = time.monotonic()
        if not self.restored:
            self.last_used = self.ready_at
        self.shared.room.loaded(self.name, self.life.pid)
        self.apply("healthy")
        self.shared.admit()

    def idle_at(self, now: float) -> float:
        """The earliest moment (monotonic) at which it can have been idle for too long.

        While it is in use that moves on with ``now``, so that no request needs to tell its end.
        """
        minutes = self.options.idle_timeout
        if not minutes:
            return float("inf")
        unused_since = max(self.last_used, self.ready_at)
        return (now if self.in_flight or self.waiters else unused_since) + minutes * 60

    def crashed(
        self, exit_code: int | None, why: Diagnosis, lines: tuple[str, ...], *, was_stable: bool
    ) -> None:
        """It ended unasked: go to ``restarting``, or to ``failed`` if that makes no sense."""
        if was_stable:
            self.failures = 0
        restarts = 1 if was_stable else self.life.restarts + 1
        self.health = None
        self.apply(
            "exited",
            pid=None,
            port=None,
            exit_code=exit_code,
            restarts=restarts,
            error=why.message,
            hint=why.hint,
            log_lines=lines,
        )
        self.shared.room.loads_again(self.name)
        if why.permanent or not self.options.auto_restart:
            self.give_up(StartFailed(why.message, hint=why.hint))
        elif restarts > self.options.max_restarts:
            times = f"{restarts} times in a row: {why.message}" if restarts > 1 else why.message
            self.give_up(StartFailed(times, hint=why.hint))

    def give_up(self, error: StartFailed) -> None:
        """Go to ``failed``, and have requests wait before they try again."""
        self.failures += 1
        delay = max(1.0, self.options.restart_delay)
        pause = backoff(delay, self.failures, self.shared.timing.longest_backoff)
        self.retry_at = time.monotonic() + pause
        self.apply("give_up", pid=None, port=None, error=error.message, hint=error.hint)
        self.came_to_rest()

    def stays_down_for(self, error: LlamactlError) -> None:
        """Tell whoever looks why it was not started again with the server."""
        message = f"It was not started again with the server: {error.message}"
        self.life = replace(self.life, error=message, hint=error.hint)
        self.shared.changes += 1

    def need_not_come_back(self) -> None:
        """A person stopped it before it was started again with the server."""
        self.wanted_back = False
        self.life = replace(self.life, error=None, hint="")
        self.shared.changes += 1

    def failure(self) -> StartFailed:
        """Why it failed, for whoever asked for it."""
        return StartFailed(
            f"The instance {self.name} did not start: {self.life.error or 'no reason is known'}",
            hint=self.life.hint,
            retry_after=max(1.0, self.retry_at - time.monotonic()),
            log_lines=self.life.log_lines,
        )

    def broke_off(self) -> InstanceNotRunning:
        """That its process ended, for whoever it owed an answer."""
        stopped = self.status in ("stopping", "stopped")
        why = "it was stopped" if stopped else self.life.error or "its process ended"
        pause = self.retry_at - time.monotonic() if self.status == "failed" else 0.0
        return InstanceNotRunning(
            f"The instance {self.name} ended before it answered: {why}",
            hint="" if stopped else self.life.hint,
            retry_after=max(1.0, pause),
        )

    def late(self, seconds: float) -> StartTimeout:
        """That it is not ready after so long, for whoever waited, and what it does meanwhile."""
        hint = "It goes on loading; its log shows how far it is."
        if self.status == "restarting":
            ended = sentences(self.life.error or "it ended", self.life.hint)
            hint = f"{ended} After a pause it is started again."
        return StartTimeout(
            f"{self.name} is not ready after {seconds:g} seconds", hint=hint, retry_after=5
        )

    def used(self) -> None:
        """It was used just now."""
        self.last_used = time.monotonic()
        self.last_used_at = time.time()

    def take_lease(self) -> None:
        """Count one more request; only while it is running."""
        self.in_flight += 1
        self.requests += 1
        self.used()
        self.shared.changes += 1

    def return_lease(self) -> None:
        """Count one request less; what was waiting for that goes on."""
        self.in_flight -= 1
        self.used()
        self.shared.changes += 1
        if self.in_flight == 0:
            if self.status == "stopping":
                self.ring()
            self.shared.admit()

    def ring(self) -> None:
        """Have the owner's thread look at what changed."""
        if self._owner is not None:
            self._owner.bell.ring()

    def leave(self) -> bool:
        """Asked by the owner's thread: whether it may end. Afterwards it must touch nothing."""
        if self.at_rest:
            self._owner = None
        return self.at_rest

    def join(self, timeout: float) -> bool:
        """Wait for the owner's thread; False if it is still there. Without the lock."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def source(self) -> Source | None:
        """How its figures are asked; None while it does not run."""
        life, key = self.life, self.key
        if life.status != "running" or life.pid is None or life.port is None or key is None:
            return None
        probe = Probe(HOST, life.port, key)
        return Source(self.name, life.pid, probe, self.meter, busy=self.in_flight > 0)

    def user(self) -> User:
        """What it uses, and how that is asked of a router."""
        source = self.source() if self.options.is_router else None
        return User(self.name, self.options, self.files, source.probe if source else None)

    def snapshot(self) -> InstanceSnapshot:
        life = self.life
        error = self.unusable or life.error
        return InstanceSnapshot(
            id=self.id,
            name=self.name,
            status=life.status,
            created=self.created,
            options=self.options,
            port=life.port,
            pid=life.pid,
            health=self.health,
            restarts=life.restarts,
            exit_code=life.exit_code,
            error=sentences(error, life.hint) if error else None,
            in_flight=self.in_flight,
            requests=self.requests,
            last_used=self.last_used_at,
        )
