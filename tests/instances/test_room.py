"""What is free, and who holds how much of it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from llamactl.errors import ModelNotFound
from llamactl.instances import processes
from llamactl.instances.admission import Amount
from llamactl.instances.modelfiles import ResolvedModel
from llamactl.instances.room import Room
from llamactl.models.fit import RAM_RESERVE, Machine, Memory


def room(*readings: Machine) -> Room:
    left = list(readings)

    def resolve(reference: str) -> ResolvedModel:
        raise ModelNotFound(reference)

    def read(_within: float) -> Machine:
        return left.pop(0) if len(left) > 1 else left[0]

    return Room(read, resolve, "warn", threading.RLock())


def with_ram(free: int) -> Machine:
    return Machine(Memory(free + RAM_RESERVE, 100 + RAM_RESERVE))


def test_what_loads_counts_until_it_shows_and_only_once() -> None:
    rooms = room(with_ram(100), with_ram(70), with_ram(50), with_ram(45))
    rooms.look()
    rooms.claim("a", Amount(ram=50))
    assert rooms.free() == Amount(ram=50)
    rooms.look()  # It has loaded 30 of its 50.
    assert rooms.free() == Amount(ram=50)
    rooms.claim("b", Amount(ram=5))
    assert rooms.free() == Amount(ram=45)
    rooms.look()
    rooms.loaded("a", os.getpid())
    assert rooms.free() == Amount(ram=45)
    rooms.loaded("b", os.getpid())
    assert rooms.free() == Amount(ram=45)
    rooms.look()
    assert rooms.free() == Amount(ram=45)


def test_what_an_end_gives_back_is_free_at_once_by_reckoning() -> None:
    rooms = room(with_ram(100))
    rooms.look()
    rooms.claim("a", Amount(ram=60))
    rooms.release("a")
    rooms.release("a")
    assert rooms.held_by("a") == Amount()
    rooms.look()
    assert rooms.free() == Amount(ram=100)


def test_a_machine_that_tells_nothing_leaves_all_open() -> None:
    rooms = room(Machine(None))
    assert rooms.free() is None
    rooms.look()
    rooms.claim("a", Amount(ram=5))
    rooms.loaded("a", os.getpid())
    assert rooms.free() is None


def test_pages_of_the_weights_that_a_running_one_has_mapped_are_not_free(tmp_path: Path) -> None:
    mapped = processes.mapped_bytes(os.getpid())
    assert mapped > 0 and processes.mapped_bytes(0) == 0
    rooms = room(with_ram(mapped))
    rooms.look()
    rooms.claim("a", Amount(ram=mapped // 2), pageable=mapped)
    rooms.loaded("a", os.getpid())
    rooms.look()
    assert rooms.free() == Amount(ram=mapped - mapped // 2)
