"""Leases: how a request gets a running instance and keeps it."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from llamactl.errors import (
    InstanceNotFound,
    InstanceNotRunning,
    Interrupted,
    LlamactlError,
    ShuttingDown,
    StartTimeout,
)
from llamactl.instances.instance import Instance
from llamactl.instances.places import Places
from llamactl.instances.run import HOST
from llamactl.instances.shared import Shared
from llamactl.instances.snapshot import InstanceSnapshot
from llamactl.secret import Secret

#: Seconds between two questions whether anybody still waits.
_ASK_EVERY = 0.25


def never() -> bool:
    """Nobody cancels."""
    return False


class Lease:
    """A running instance, held until ``release`` or the end of the ``with`` block.

    While it is held the instance is stopped neither for idleness nor for another instance.
    """

    def __init__(self, instance: Instance, port: int, key: Secret) -> None:
        self.host = HOST
        self.port = port
        self.api_key = key
        self.snapshot: InstanceSnapshot = instance.snapshot()
        self._instance: Instance | None = instance
        self._unseen = False

    def passed_on(self) -> None:
        """A part of the answer was passed on: the instance goes on."""
        if (instance := self._instance) is not None:
            instance.passed_on += 1

    def leave_unseen(self) -> None:
        """Somebody else passes the answer on, so that nothing will be seen of it here."""
        if (instance := self._instance) is not None:
            with instance.shared.lock:
                self._unseen = True
                instance.unseen += 1

    def ended(self, timeout: float) -> InstanceNotRunning | None:
        """What to tell whoever asked it, where its process has ended; None where it still runs.

        Its owner notices an end a moment after its connections do, which is waited for, at most
        ``timeout`` seconds.
        """
        if (instance := self._instance) is None:
            return None
        with instance.shared.lock:
            gone = instance.changed.wait_for(
                lambda: instance.status != "running" or instance.life.pid != self.snapshot.pid,
                timeout,
            )
            return instance.broke_off() if gone else None

    def release(self) -> None:
        """Give it back. Safe to call again, and from any thread."""
        if (instance := self._instance) is not None:
            with instance.shared.lock:
                if self._instance is not None:
                    self._instance = None
                    instance.unseen -= self._unseen
                    instance.return_lease()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Leases:
    """Gives leases, starting instances on demand."""

    def __init__(self, shared: Shared, places: Places) -> None:
        self._shared = shared
        self._places = places

    def take(self, instance: Instance, timeout: float, cancelled: Callable[[], bool]) -> Lease:
        """A lease as soon as the instance runs; see ``Supervisor.lease`` for what is raised."""
        deadline = time.monotonic() + timeout
        with self._shared.lock:
            if (lease := self._granted(instance)) is not None:
                return lease
            instance.waiters += 1
            stops = instance.stops
        asked = weighed = False
        try:
            while not cancelled():
                with self._shared.lock:
                    if (lease := self._granted(instance)) is not None:
                        return lease
                    self._check_not_stopped(instance, stops)
                    wants = self._wants_start(instance, asked)
                    if wants and weighed:
                        self._ask_for_start(instance)
                        asked, wants = True, False
                    left = deadline - time.monotonic()
                    if left <= 0 and not wants:
                        raise self._too_late(instance, timeout)
                    if not wants and instance.status != "running":
                        instance.changed.wait(min(left, _ASK_EVERY))
                    looks = wants or self._places.waits_for_memory(instance)
                weighed = wants
                if looks:
                    self._places.weigh(instance)
                    with self._shared.lock:
                        self._places.admit()
            raise Interrupted(f"Nobody waits for {instance.name} any more")
        finally:
            with self._shared.lock:
                instance.waiters -= 1
                self._after_waiting(instance)

    def _check_not_stopped(self, instance: Instance, stops: int) -> None:
        if instance.stops != stops:
            raise InstanceNotRunning(
                f"The instance {instance.name} was stopped while the request waited for it"
            )

    def _granted(self, instance: Instance) -> Lease | None:
        life, key = instance.life, instance.key
        if life.status != "running" or life.port is None or key is None:
            return None
        instance.take_lease()
        return Lease(instance, life.port, key)

    def _wants_start(self, instance: Instance, asked: bool) -> bool:
        """Whether a start has to be asked for; raises if waiting is in vain."""
        if self._shared.stopping:
            raise ShuttingDown("The server is going down", retry_after=10)
        if instance.deleted:
            raise InstanceNotFound(f"There is no instance {instance.name!r}")
        if self._places.queued(instance) or instance.status in ("starting", "restarting"):
            return False
        if instance.status == "failed" and (asked or time.monotonic() < instance.retry_at):
            raise instance.failure()
        if instance.status == "stopping" and instance.again:
            return False
        if not instance.options.on_demand_start:
            raise InstanceNotRunning(
                f"The instance {instance.name} is {instance.status}",
                hint="Start it, or switch on its on_demand_start.",
            )
        return True

    def _ask_for_start(self, instance: Instance) -> None:
        if instance.status == "stopping" and instance.successor is None:
            instance.stop(again=True)
            return
        decision = self._places.decision(instance, patient=True)
        if not decision.admitted and (decision.hopeless or not self._places.evicts):
            raise self._places.refusal(instance, decision)
        self._places.queue(instance, "request")
        self._places.admit()

    def _too_late(self, instance: Instance, timeout: float) -> LlamactlError:
        if self._places.queued(instance):
            decision = self._places.decision(instance, patient=True)
            return StartTimeout(
                f"No place for {instance.name} came free in {timeout:g} seconds",
                hint="Others wait before it."
                if decision.admitted
                else self._places.refusal(instance, decision).details,
                retry_after=5,
            )
        return instance.late(timeout)

    def _after_waiting(self, instance: Instance) -> None:
        """A place that nobody waits for any more goes to others."""
        if instance.waiters == 0:
            self._places.admit()
