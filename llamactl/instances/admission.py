"""Who may run: the limits, the memory, and whom to stop for a newcomer. Pure.

An instance takes its place from the moment it is starting until its process is gone. One that is
being stopped for another has already given its place to that one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

#: Where a newcomer's memory lies: all of it on the devices; there and in the machine's memory;
#: there too, but its weights are read from their file again and again.
Site: TypeAlias = Literal["devices", "memory", "paged"]
SITES: tuple[Site, ...] = ("devices", "memory", "paged")

#: What stands against a start: its group is full, so many may run, there is no memory.
Obstacle: TypeAlias = Literal["group", "running", "memory"]

#: ``instances.memory_admission``.
Mode: TypeAlias = Literal["off", "warn", "enforce"]


@dataclass(frozen=True)
class Amount:
    """Bytes on each of llama.cpp's devices, by its name, and in the machine's own memory."""

    devices: Mapping[str, int] = field(default_factory=dict)
    ram: int = 0

    def __add__(self, other: Amount) -> Amount:
        return self._with(other, operator.add)

    def __sub__(self, other: Amount) -> Amount:
        return self._with(other, operator.sub)

    def least(self, other: Amount) -> Amount:
        """The smaller of each."""
        return self._with(other, min)

    def covers(self, other: Amount) -> bool:
        """Whether there is as much of each as ``other`` has, none of which is less than nothing."""
        on_devices = all(size <= max(0, self.on(name)) for name, size in other.devices.items())
        return on_devices and other.ram <= max(0, self.ram)

    def on(self, device: str) -> int:
        """The bytes on that device."""
        return self.devices.get(device, 0)

    @property
    def on_devices(self) -> int:
        """The bytes on all devices together; one with less than nothing counts as empty."""
        return sum(max(0, size) for size in self.devices.values())

    @property
    def total(self) -> int:
        return sum(self.devices.values()) + self.ram

    def _with(self, other: Amount, join: Callable[[int, int], int]) -> Amount:
        names = [*self.devices, *(name for name in other.devices if name not in self.devices)]
        devices = {name: join(self.on(name), other.on(name)) for name in names}
        return Amount(devices, join(self.ram, other.ram))


@dataclass(frozen=True)
class Demand:
    """Bytes that an instance takes by estimate.

    ``pageable`` of them are weights that the system can drop and read again, as long as they lie in
    the machine's memory. ``on_devices`` must lie on the devices; None leaves that to llama.cpp,
    which puts there what there is room for. It uses no devices but those that are ``among``; None
    is all of them.
    """

    total: int
    pageable: int = 0
    on_devices: int | None = None
    among: tuple[str, ...] | None = None

    def reachable(self, free: Amount) -> Amount:
        """What of that it can use."""
        if self.among is None:
            return free
        return Amount({name: free.on(name) for name in self.among}, free.ram)

    def spread(self, free: Amount) -> Amount:
        """Where it would lie with so much free, whether there is enough or not.

        llama.cpp gives each device its part by what is free there.
        """
        rooms = {name: max(0, size) for name, size in self.reachable(free).devices.items()}
        wanted = self.on_devices
        if wanted is None:
            wanted = min(self.total, sum(rooms.values()))
        return Amount(_shares(wanted, rooms), self.total - wanted)

    def at(self, site: Site, free: Amount) -> Amount | None:
        """What it takes at that site; None if so much is not free there."""
        spread = self.spread(free)
        if site == "devices" and spread.ram > 0:
            return None
        if site == "paged":
            spread = Amount(spread.devices, spread.ram - min(self.pageable, spread.ram))
        return spread if free.covers(spread) else None


def _shares(wanted: int, rooms: Mapping[str, int]) -> dict[str, int]:
    """``wanted`` bytes on devices with so much room, in its proportion; the first has what is more
    than all have."""
    room = sum(rooms.values())
    if wanted > room:
        first = next(iter(rooms), "")
        return {**rooms, first: rooms.get(first, 0) + wanted - room}
    shares = {name: wanted * size // max(1, room) for name, size in rooms.items()}
    left = wanted - sum(shares.values())
    for name, size in rooms.items():
        more = min(left, size - shares[name])
        shares[name] += more
        left -= more
    return {name: share for name, share in shares.items() if share}


def site_of(demand: Demand, free: Amount) -> Site | None:
    """The best site at which so much is free; None if there is none."""
    return next((site for site in SITES if demand.at(site, free) is not None), None)


@dataclass(frozen=True)
class Place:
    """An instance that takes a place. ``idle_since`` is None while it must not be evicted:
    it serves, it is waited for, or it is on its way up or down. ``takes`` is what it holds."""

    name: str
    group: str | None
    idle_since: float | None
    takes: Amount = Amount()


@dataclass(frozen=True)
class Limits:
    """``running`` and each group's limit; negative is no limit."""

    running: int
    groups: Mapping[str, int]
    evict: bool
    memory: Mode = "off"


@dataclass(frozen=True)
class MemoryAsked:
    """What a newcomer takes, and what is free. One that is ``patient`` can wait for others to
    become idle."""

    demand: Demand
    free: Amount
    patient: bool = False


@dataclass(frozen=True)
class Decision:
    """``admitted`` says whether to start now; ``evict`` names whom to stop first, oldest first.

    ``obstacles`` are what stands against a start without that. If it is not admitted, ``full`` is
    the group that is full, or None. ``short``: there is not the memory, with everyone idle stopped;
    ``hopeless``: nor with everyone. ``takes`` is what it would hold, at ``site``.
    """

    admitted: bool
    evict: tuple[str, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    full: str | None = None
    short: bool = False
    hopeless: bool = False
    takes: Amount = Amount()
    site: Site | None = None


def decide(
    group: str | None, taken: Sequence[Place], limits: Limits, memory: MemoryAsked | None = None
) -> Decision:
    """Whether an instance of ``group`` may start beside those that have a place.

    The least recently used go, no more of them than must, and only of the same group where the
    group is what is full. Without ``memory``, or with its mode off, memory does not count.
    """
    question = _Question(group, taken, limits, memory if limits.memory != "off" else None)
    sites: tuple[Site | None, ...] = SITES if question.memory else (None,)
    for site in sites:
        gone = question.fewest(site)
        if gone is not None:
            return question.admitted(gone, site)
    gone = question.fewest(None)
    if gone is None:
        full = group if "group" in question.obstacles((), None) else None
        return Decision(False, obstacles=question.obstacles((), None), full=full)
    return question.short_of_memory()


@dataclass(frozen=True)
class _Question:
    group: str | None
    taken: Sequence[Place]
    limits: Limits
    memory: MemoryAsked | None

    def obstacles(self, gone: Sequence[Place], site: Site | None) -> tuple[Obstacle, ...]:
        """What still stands against a start at ``site`` once these have gone."""
        left = [place for place in self.taken if place not in gone]
        group_limit = self.limits.groups.get(self.group, -1) if self.group is not None else -1
        found: list[Obstacle] = []
        if 0 <= group_limit <= sum(place.group == self.group for place in left):
            found.append("group")
        if 0 <= self.limits.running <= len(left):
            found.append("running")
        if self.memory is not None and site is not None:
            free = self.memory.free + _sum(gone)
            if self.memory.demand.at(site, free) is None:
                found.append("memory")
        return tuple(found)

    def fewest(self, site: Site | None) -> tuple[Place, ...] | None:
        """Whom to stop, least recently used first; None if all of them are not enough."""
        idle = self.idle()
        chosen: list[Place] = []
        while against := self.obstacles(chosen, site):
            helpful = next((each for each in idle if self._helps(each, against)), None)
            if helpful is None:
                return None
            idle.remove(helpful)
            chosen.append(helpful)
        # Of those that were chosen before it was known who else must go, some may stay after all.
        for place in sorted(chosen, key=_idle_since, reverse=True):
            rest = [each for each in chosen if each is not place]
            if not self.obstacles(rest, site):
                chosen = rest
        return tuple(sorted(chosen, key=_idle_since))

    def idle(self) -> list[Place]:
        """Those that may be stopped, least recently used first."""
        if not self.limits.evict:
            return []
        return sorted((each for each in self.taken if each.idle_since is not None), key=_idle_since)

    def _helps(self, place: Place, against: Sequence[Obstacle]) -> bool:
        if "group" in against:
            return place.group == self.group
        return "running" in against or place.takes.total > 0

    def admitted(self, gone: tuple[Place, ...], site: Site | None, short: bool = False) -> Decision:
        """The start of it once these have gone."""
        takes = Amount()
        if self.memory is not None:
            free = self.memory.free + _sum(gone)
            takes = (site and self.memory.demand.at(site, free)) or self.memory.demand.spread(free)
        return Decision(
            True,
            evict=tuple(each.name for each in gone),
            obstacles=self.obstacles((), "paged" if short else site),
            short=short,
            hopeless=short and self._hopeless(),
            takes=takes,
            site=site,
        )

    def short_of_memory(self) -> Decision:
        """There is a place, but not the memory: wait, be refused, or try it all the same."""
        hopeless = self._hopeless()
        waits = self.memory is not None and self.memory.patient and not hopeless
        if self.limits.memory == "enforce" or waits:
            obstacles = self.obstacles((), "paged")
            return Decision(False, obstacles=obstacles, short=True, hopeless=hopeless)
        # An estimate can be wrong: with everyone idle gone it has the best chance.
        gone = [each for each in self.idle() if each.takes.total > 0]
        for place in self.fewest(None) or ():
            gone += [] if place in gone else [place]
        return self.admitted(tuple(sorted(gone, key=_idle_since)), None, short=True)

    def _hopeless(self) -> bool:
        assert self.memory is not None
        free = self.memory.free + _sum(self.taken)
        return self.memory.demand.at("paged", free) is None


def _sum(places: Iterable[Place]) -> Amount:
    return sum((place.takes for place in places), Amount())


def _idle_since(place: Place) -> tuple[float, str]:
    return place.idle_since or 0.0, place.name
