"""Whether an instance that serves goes on, from what can be seen of it from outside. Pure.

Progress is a token that a slot has read or written, and a part of an answer that was passed on. A
server whose slots stand still may go on saying that it is healthy, and may go on sending pings.
"""

from __future__ import annotations

from dataclasses import dataclass

from llamactl.instances.slots import Slots


@dataclass(frozen=True)
class Sight:
    """An instance at one look. ``slots`` is None where it does not tell them.

    ``passed_on`` counts the parts of answers that were passed on; ``all_seen`` is whether all of
    them pass through llamactl.
    """

    serves: bool
    slots: Slots | None
    passed_on: int
    all_seen: bool = True


#: Seconds that one step counts at most: the server itself may have been stopped meanwhile.
_LONGEST_STEP = 60.0


class Progress:
    """Adds up the time in which an instance served and nothing came of it."""

    def __init__(self) -> None:
        self._slots: Slots | None = None
        self._passed_on = -1
        self._looked_at: float | None = None
        self._stuck = 0.0

    def look(self, sight: Sight, now: float) -> float:
        """For how many seconds it has made no progress, at monotonic ``now``.

        Time in which it serves nobody, and so is not looked at closely, neither counts nor forgets:
        clients that give up and ask again do not make a server go on.
        """
        passed = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now if sight.serves else None
        if self._goes_on(sight):
            self._stuck = 0.0
        elif sight.serves and (sight.slots is not None or sight.all_seen):
            self._stuck += min(passed, _LONGEST_STEP)
        self._passed_on = sight.passed_on
        if sight.slots is not None:
            self._slots = sight.slots
        return self._stuck

    def _goes_on(self, sight: Sight) -> bool:
        if sight.passed_on != self._passed_on:
            return True
        if sight.slots is None:
            return False
        # Requests without a slot that works wait for their clients, not for the model.
        return not sight.slots.working or sight.slots != self._slots
