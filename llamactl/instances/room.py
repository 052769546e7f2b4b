"""The memory that is free, and who holds how much of it.

What an instance takes shows in a reading of the machine only once it has loaded, and what it gives
back a moment after its end. So each holds what it was reckoned to take from the moment it may
start, and what is free is the smaller of two numbers: what was read last, and what will be left
when everyone who is loading has loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from llamactl.instances import processes
from llamactl.instances.admission import Amount, Demand, Mode
from llamactl.instances.memory import RECENT
from llamactl.instances.modelfiles import ResolveModel
from llamactl.instances.needs import demand_of, need_of_options
from llamactl.instances.options import Options
from llamactl.models.fit import Machine, Need

#: Reads the machine; what its devices said within so many seconds will do.
ReadMachine = Callable[[float], Machine]


@dataclass(frozen=True)
class _Holding:
    """``pageable`` bytes of ``amount`` are weights in the machine's memory. ``pid`` is its process
    once it has loaded."""

    amount: Amount
    pageable: int
    pid: int | None = None


class Room:
    """Its methods want the lock held, but for ``look`` and ``weigh``, which take it."""

    def __init__(
        self, read: ReadMachine, resolve_model: ResolveModel, mode: Mode, lock: threading.RLock
    ) -> None:
        self.mode = mode
        self._read = read
        self._resolve_model = resolve_model
        self._lock = lock
        self._held: dict[str, _Holding] = {}
        #: Whether the last reading found devices with a memory of their own or the machine's.
        self.has_devices = False
        #: What was read, and what will be left; None where nothing is known, or nobody loads.
        self._seen: Amount | None = None
        self._expected: Amount | None = None

    def look(self, within: float = RECENT) -> Machine:
        """Read the machine, without the lock: asking its devices can take a second.

        What they said ``within`` so many seconds will do.
        """
        machine = self._read(within)
        with self._lock:
            loaded = [held for held in self._held.values() if held.pid is not None]
        # The kernel counts the pages of a mapped file as free; for another model they are not.
        mapped = sum(
            min(held.pageable, processes.mapped_bytes(held.pid or 0))
            for held in loaded
            if held.pageable
        )
        devices, ram = machine.usable_devices(), machine.usable()[1]
        with self._lock:
            self.has_devices = bool(machine.devices)
            known = machine.ram is not None or machine.devices
            self._seen = Amount(devices, max(0, ram - mapped)) if known else None
        return machine

    def weigh(self, options: Options, within: float = RECENT) -> tuple[Need | None, Demand | None]:
        """What a start with these options takes by estimate, on this machine as it is now.

        None where that is not known, or memory does not count. Without the lock. Raises
        ``StartFailed`` for what can never be loaded.
        """
        need = need_of_options(options, self._resolve_model)
        if self.mode == "off" or need is None:
            return need, None
        return need, demand_of(need, options, self.look(within))

    @property
    def seen(self) -> Amount | None:
        """What the last reading found free; None before the first one."""
        return self._seen

    def free(self) -> Amount | None:
        """What a newcomer can have; None where that is not known."""
        if self._seen is None or self._expected is None:
            return self._seen
        return self._seen.least(self._expected)

    def held_by(self, name: str) -> Amount:
        """What an instance holds, by estimate; nothing for one of which nothing is known."""
        held = self._held.get(name)
        return held.amount if held else Amount()

    def holds(self, name: str) -> bool:
        """Whether it has claimed anything."""
        return name in self._held

    def claim(self, name: str, amount: Amount, pageable: int = 0) -> None:
        """It is going to load, and so much is its own from now on."""
        self.release(name)
        free = self.free()
        self._held[name] = _Holding(amount, min(pageable, amount.ram))
        self._expected = None if free is None else free - amount

    def loaded(self, name: str, pid: int | None) -> None:
        """It has loaded: what it takes shows in the next reading."""
        if name in self._held:
            self._held[name] = replace(self._held[name], pid=pid)
            self._forget_expected()

    def release(self, name: str) -> None:
        """Its memory comes back, or is given to another; the next reading tells whether it has."""
        held = self._held.pop(name, None)
        if held is None:
            return
        self._seen = None if self._seen is None else self._seen + held.amount
        self._expected = None if self._expected is None else self._expected + held.amount
        self._forget_expected()

    def loads_again(self, name: str) -> None:
        """Its process is gone, and another one takes the same."""
        if held := self._held.get(name):
            self.claim(name, held.amount, held.pageable)

    def _forget_expected(self) -> None:
        if all(held.pid is not None for held in self._held.values()):
            self._seen, self._expected = self.free(), None
