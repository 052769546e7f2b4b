"""Who gets a place among the running instances, and in which order. Wants the lock held."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal, TypeAlias

from llamactl.errors import MaxInstancesReached, ShuttingDown
from llamactl.instances.admission import Decision, Limits, Place, decide
from llamactl.instances.instance import Instance
from llamactl.instances.shared import Shared

logger = logging.getLogger(__name__)

#: Why somebody queues: a request waits for it, a person asked, it ran before the server went down.
Reason: TypeAlias = Literal["request", "person", "restore"]

#: How many are loaded at once after the server came up.
RESTORED_AT_ONCE = 2


class Places:
    """The queue for places. Requests are served in the order in which they came."""

    def __init__(self, shared: Shared, instances: Iterable[Instance]) -> None:
        self._shared = shared
        self._instances = instances
        self._queue: dict[Instance, Reason] = {}
        self._restoring: list[Instance] = []
        self._admitting = False
        self._asked_again = False
        config = shared.config.instances
        self._limits = Limits(
            config.max_running_instances, config.group_limits, config.enable_lru_eviction
        )

    def start_now(self, instance: Instance) -> None:
        """A person starts it: now, or ``MaxInstancesReached``."""
        if self._shared.stopping:
            raise ShuttingDown("The server is going down")
        instance.failures = 0
        if instance.status == "restarting":
            instance.begin()
        elif instance.status == "stopping" and instance.successor is None:
            instance.stop(again=True)
        elif instance.status == "stopping":
            self.queue(instance, "person")
        elif instance.at_rest:
            decision = self.decision(instance)
            if not decision.admitted:
                raise self.refusal(decision)
            self._begin(instance, decision)

    def queue(self, instance: Instance, reason: Reason) -> None:
        """Have it started as soon as there is a place, after those who came before."""
        self._queue.setdefault(instance, reason)

    def queued(self, instance: Instance) -> bool:
        return instance in self._queue

    def drop(self, instance: Instance) -> None:
        self._queue.pop(instance, None)

    def clear(self) -> None:
        self._queue.clear()

    def decision(self, instance: Instance) -> Decision:
        """What a start of it now would mean; nothing is done."""
        taken = [_place(each) for each in self._instances if each.has_place]
        return decide(instance.options.group, taken, self._limits)

    @property
    def evicts(self) -> bool:
        return self._limits.evict

    def refusal(self, decision: Decision) -> MaxInstancesReached:
        """The error that says which limit is reached."""
        if decision.full is not None:
            limit = self._limits.groups[decision.full]
            what = f"{_count(limit, f' of the group {decision.full}')} already"
            setting = "instances.group_limits"
        else:
            what = f"{_count(self._limits.running)} already"
            setting = "instances.max_running_instances"
        idle = ", and none of them is idle" if self._limits.evict else ""
        return MaxInstancesReached(f"{what}{idle}", hint=f"Stop one, or raise {setting}.")

    def admit(self) -> None:
        """Start those for whom there is a place now.

        Starting one can stop another, which calls this again; that is done afterwards.
        """
        if self._admitting or self._shared.stopping:
            self._asked_again = True
            return
        self._admitting = True
        try:
            self._asked_again = True
            while self._asked_again:
                self._asked_again = False
                self._admit_in_order()
        finally:
            self._admitting = False

    def _admit_in_order(self) -> None:
        full_groups: set[str] = set()
        for instance, reason in list(self._queue.items()):
            if not self._still_wanted(instance, reason):
                self.drop(instance)
                continue
            if instance.status == "stopping" or instance.options.group in full_groups:
                continue
            if reason == "restore" and self._busy_restoring():
                continue
            decision = self.decision(instance)
            if reason == "restore" and (not decision.admitted or decision.evict):
                logger.warning("%s stays down: %s", instance.name, self.refusal(decision).message)
                self.drop(instance)
            elif decision.admitted:
                self._begin(instance, decision)
                if reason == "restore":
                    self._restoring.append(instance)
            elif decision.full is None:
                break
            else:
                full_groups.add(decision.full)

    def _still_wanted(self, instance: Instance, reason: Reason) -> bool:
        if instance.status in ("starting", "running", "restarting"):
            return False
        return reason != "request" or instance.waiters > 0

    def _busy_restoring(self) -> bool:
        self._restoring = [each for each in self._restoring if each.status == "starting"]
        return len(self._restoring) >= RESTORED_AT_ONCE

    def _begin(self, instance: Instance, decision: Decision) -> None:
        self.drop(instance)
        every = {each.name: each for each in self._instances}
        victim = every[decision.evict] if decision.evict else None
        if victim is not None:
            logger.info("%s stops to make room for %s", victim.name, instance.name)
        instance.begin(victim)


def _count(number: int, of: str = "") -> str:
    return f"{number} instance{of} runs" if number == 1 else f"{number} instances{of} run"


def _place(instance: Instance) -> Place:
    unused = instance.in_flight == 0 and instance.waiters == 0
    evictable = unused and instance.status in ("running", "restarting")
    return Place(instance.name, instance.options.group, instance.last_used if evictable else None)
