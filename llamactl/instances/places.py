"""Who gets a place among the running instances, and in which order. Wants the lock held."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, TypeAlias

from llamactl.errors import (
    InsufficientMemory,
    LlamactlError,
    MaxInstancesReached,
    ShuttingDown,
    StartFailed,
)
from llamactl.instances.admission import (
    Amount,
    Decision,
    Demand,
    Limits,
    MemoryAsked,
    Place,
    decide,
    site_of,
)
from llamactl.instances.instance import Instance
from llamactl.instances.memory import RECENT
from llamactl.instances.needs import demand_of
from llamactl.instances.plan import (
    StartPlan,
    figures_text,
    impossible_plan,
    make_plan,
    running_plan,
)
from llamactl.instances.shared import Shared

logger = logging.getLogger(__name__)

#: Why somebody queues: a request waits for it, or a person asked.
Reason: TypeAlias = Literal["request", "person"]

#: Seconds for which what the devices said will do where nothing of llamactl's runs on them.
_WHILE = 3600.0


class Places:
    """The queue for places. Requests are served in the order in which they came."""

    def __init__(self, shared: Shared, instances: Iterable[Instance]) -> None:
        self._shared = shared
        self._instances = instances
        self._queue: dict[Instance, Reason] = {}
        self._admitting = False
        self._asked_again = False
        config = shared.config.instances
        self._limits = Limits(
            config.max_running_instances,
            config.group_limits,
            config.enable_lru_eviction,
            config.memory_admission,
        )

    def weigh(self, instance: Instance) -> None:
        """Look what memory there is and what a start of it takes. Wants the lock not held.

        Asked before a start is decided, since that takes a look at files and devices.
        """
        with self._shared.lock:
            alone = not any(each.has_place for each in self._instances)
        # Asking the devices anew would cost the first request after a rest most of a second, to
        # decide about nobody. It is done where it does not fit by what they said a while ago.
        self._weigh(instance, _WHILE if alone else RECENT)
        if alone and self._shared.room.has_devices:
            with self._shared.lock:
                fits = self.decision(instance).site == "devices"
            if not fits:
                self._weigh(instance, RECENT)

    def _weigh(self, instance: Instance, within: float) -> None:
        demand = None
        if self._limits.memory != "off":
            # What can never be loaded is told by the start itself.
            with contextlib.suppress(LlamactlError, OSError):
                demand = self._shared.room.weigh(instance.options, within)[1]
        with self._shared.lock:
            instance.demand = demand

    def plan(self, instance: Instance) -> StartPlan:
        """What a person's start of it would do now. Wants the lock not held."""
        room = self._shared.room
        machine = room.look()
        try:
            need, _ = room.weigh(instance.options)
        except StartFailed as error:
            with self._shared.lock:
                return impossible_plan(room.free(), error.details)
        with self._shared.lock:
            free = room.free()
            if instance.has_place:
                return running_plan(need, free, instance.status)
            demand = None if need is None else demand_of(need, instance.options, machine)
            instance.demand = demand
            decision = self.decision(instance)
            if decision.admitted and decision.site is None and demand is not None and free:
                # Memory does not decide, or not any more; where it would lie is told all the same.
                decision = replace(decision, site=site_of(demand, free))
            leaving = {each.name for each in self._instances if _leaves(each)}
            stopped = tuple(name for name in decision.evict if name not in leaving)
            held = {each.name: room.held_by(each.name).total for each in self._instances}
            refusal = "" if decision.admitted else self.refusal(instance, decision).details
        told = replace(decision, evict=stopped)
        if free is not None and demand is not None:
            free = demand.reachable(free)
        return make_plan(need, free, told, held, refusal, gpu=self._gpu(demand))

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
                raise self.refusal(instance, decision)
            self._begin(instance, decision)

    def restore(self, instance: Instance) -> MaxInstancesReached | InsufficientMemory | None:
        """Start one that ran when the server went down; the reason, where it stays down.

        It costs nobody else their place. Where an estimate alone is against it, it starts only if
        it is the only one.
        """
        limits = replace(self._limits, evict=False)
        decision = self.decision(instance, limits=limits)
        alone = not any(each.has_place for each in self._instances)
        if decision.admitted and (alone or not decision.short):
            self._begin(instance, decision, restored=True)
            return None
        return self.refusal(instance, decision, limits)

    def queue(self, instance: Instance, reason: Reason) -> None:
        """Have it started as soon as there is a place, after those who came before."""
        self._queue.setdefault(instance, reason)

    def queued(self, instance: Instance) -> bool:
        return instance in self._queue

    def waits_for_memory(self, instance: Instance) -> bool:
        """Whether it queues, and only because of the memory that was free when that was seen."""
        return self.queued(instance) and self.decision(instance, patient=True).short

    def drop(self, instance: Instance) -> None:
        self._queue.pop(instance, None)

    def clear(self) -> None:
        self._queue.clear()

    def decision(
        self, instance: Instance, *, patient: bool = False, limits: Limits | None = None
    ) -> Decision:
        """What a start of it now would mean, by what was seen last; nothing is done.

        ``patient``: for a request, which can wait for others to become idle. ``limits`` are others
        than those of the configuration.
        """
        room, memory = self._shared.room, None
        taken = [self._place(each) for each in self._instances if each.has_place]
        if instance.demand is not None and (free := room.free()) is not None:
            memory = MemoryAsked(instance.demand, free, patient)
        return decide(instance.options.group, taken, limits or self._limits, memory)

    @property
    def evicts(self) -> bool:
        return self._limits.evict

    def refusal(
        self, instance: Instance, decision: Decision, limits: Limits | None = None
    ) -> MaxInstancesReached | InsufficientMemory:
        """The error that says which limit is reached, or what memory is missing."""
        limits = limits or self._limits
        if decision.short or decision.obstacles == ("memory",):
            return self._no_memory(instance, decision, limits)
        group = instance.options.group
        if "group" in decision.obstacles and group is not None:
            what = f"{_count(self._limits.groups[group], f' of the group {group}')} already"
            setting = "instances.group_limits"
        else:
            what = f"{_count(self._limits.running)} already"
            setting = "instances.max_running_instances"
        idle = ", and none of them is idle" if limits.evict else ""
        return MaxInstancesReached(f"{what}{idle}", hint=f"Stop one, or raise {setting}.")

    def _no_memory(
        self, instance: Instance, decision: Decision, limits: Limits | None = None
    ) -> InsufficientMemory:
        free, demand = self._shared.room.free(), instance.demand
        assert free is not None and demand is not None
        figures = figures_text(demand.total, demand.reachable(free), self._gpu(demand))
        what = f"{figures}, which is not enough"
        if decision.hopeless:
            hint = "It is too large for this machine: choose a smaller context or quantisation"
        elif (limits or self._limits).evict:
            what += ", and those that run are not idle"
            hint = "Stop one of them"
        else:
            hint = "Stop another instance"
        return InsufficientMemory(
            what, hint=f"{hint}; instances.memory_admission says what such an estimate decides."
        )

    def _gpu(self, demand: Demand | None) -> str:
        """What the devices are called that such a one can use, if there are any."""
        if not self._shared.room.has_devices:
            return ""
        return " and ".join(demand.among) if demand is not None and demand.among else "the GPU"

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
            decision = self.decision(instance, patient=reason == "request")
            if decision.admitted:
                self._begin(instance, decision)
            elif decision.full is None:
                break
            else:
                full_groups.add(decision.full)

    def _still_wanted(self, instance: Instance, reason: Reason) -> bool:
        if instance.status in ("starting", "running", "restarting"):
            return False
        return reason != "request" or instance.waiters > 0

    def _begin(self, instance: Instance, decision: Decision, *, restored: bool = False) -> None:
        self.drop(instance)
        if decision.short:
            why = self._no_memory(instance, decision).message
            logger.warning("%s is started all the same: %s", instance.name, why)
        room, before = self._shared.room, self._shared.room.free()
        every = {each.name: each for each in self._instances}
        victims = [every[name] for name in decision.evict]
        back = sum((room.held_by(victim.name) for victim in victims), Amount())
        for victim in victims:
            if not _leaves(victim):
                logger.info("%s stops to make room for %s", victim.name, instance.name)
            room.release(victim.name)
        if instance.demand is not None:
            room.claim(instance.name, decision.takes, instance.demand.pageable)
        # Of what is not enough anyway no more can come back than the others give.
        if "memory" in decision.obstacles and back.total and before is not None:
            instance.awaited = decision.takes.least(before + back)
        instance.begin(victims, restored=restored)

    def _place(self, instance: Instance) -> Place:
        unused = instance.in_flight == 0 and instance.waiters == 0
        idle_since = None
        if _leaves(instance):
            idle_since = float("-inf")
        elif unused and instance.status in ("running", "restarting"):
            idle_since = instance.last_used
        held = self._shared.room.held_by(instance.name)
        return Place(instance.name, instance.options.group, idle_since, held)


def _leaves(instance: Instance) -> bool:
    """Whether its place comes free in a moment anyway, so that who needs it only has to wait."""
    return instance.status == "stopping" and not instance.again


def _count(number: int, of: str = "") -> str:
    return f"{number} instance{of} runs" if number == 1 else f"{number} instances{of} run"
