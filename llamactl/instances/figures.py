"""What running instances cost and do at this moment, asked only when somebody looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamactl.instances import processes
from llamactl.instances.health import Probe
from llamactl.instances.slots import Slots, read_slots

#: For an answer of an instance; one that is busy with other things is not waited for.
_ANSWER_SECONDS = 0.25
#: Readings that follow each other sooner tell too little; a longer gap tells of another time.
_SHORTEST, _LONGEST = 0.5, 30.0


@dataclass(frozen=True)
class Figures:
    """An instance at one moment. What is not known is None.

    ``memory_bytes`` is the resident memory of its process and everything that this has started,
    the model's file where it is mapped included. ``tokens_per_second`` is what its running answers
    are written with, all together: 0 while they are prepared, None while there is none.
    """

    memory_bytes: int | None = None
    tokens_per_second: float | None = None


#: Of an instance that does not run.
NO_FIGURES = Figures()


@dataclass(frozen=True)
class Source:
    """Whom to ask; ``busy`` is whether it serves somebody."""

    name: str
    pid: int
    probe: Probe
    meter: Meter
    busy: bool


class Meter:
    """The pace of an instance, from one reading of its slots to the next. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before: Slots | None = None
        self._at = 0.0
        self._rate: float | None = None

    def read(self, slots: Slots | None, now: float) -> float | None:
        """Tokens a second since the last reading, at monotonic ``now``."""
        with self._lock:
            if slots is None or not slots.working:
                self._before = self._rate = None
                return None
            passed = now - self._at
            if self._before is not None and passed < _SHORTEST:
                return self._rate
            self._rate = None
            if self._before is not None and passed <= _LONGEST:
                self._rate = slots.written_since(self._before) / passed
            self._before, self._at = slots, now
            return self._rate


def figures_of(sources: Sequence[Source]) -> Mapping[str, Figures]:
    """By name. Instances that serve nobody are not asked."""
    memory = processes.resident_bytes([source.pid for source in sources])
    return {
        source.name: Figures(memory.get(source.pid), _pace(source) if source.busy else None)
        for source in sources
    }


def _pace(source: Source) -> float | None:
    body = source.probe.body("/slots", _ANSWER_SECONDS)
    return source.meter.read(read_slots(body) if body is not None else None, time.monotonic())
