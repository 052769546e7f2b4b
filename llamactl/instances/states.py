"""The life of an instance as a machine: pure, no thread, no clock, no file.

    from                        event     to          meaning
    stopped, failed, restarting start     starting    a process is about to be made
    starting                    healthy   running     our own child answers
    starting, running           exited    restarting  it ended unasked; a back-off begins
    restarting, failed          stop      stopped
    starting, restarting        give_up   failed      restarts spent, or it can never start
    starting, running           stop      stopping    no new leases; drain, then signals
    stopping                    exited    stopped

State is what is; intent is what was asked. Transitions are applied under the supervisor's lock:
what the process does (``healthy``, ``exited``, ``give_up``) by the instance's own thread, what
people and requests ask for (``start``, ``stop``) by theirs. Everybody else reads a snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from llamactl.errors import InvalidState

Status: TypeAlias = Literal["stopped", "starting", "running", "stopping", "restarting", "failed"]
Event: TypeAlias = Literal["start", "healthy", "exited", "stop", "give_up"]

#: States in which nothing of the instance is alive and no thread owns it.
AT_REST: frozenset[Status] = frozenset({"stopped", "failed"})

TRANSITIONS: dict[tuple[Status, Event], Status] = {
    ("stopped", "start"): "starting",
    ("failed", "start"): "starting",
    ("restarting", "start"): "starting",
    ("starting", "healthy"): "running",
    ("starting", "exited"): "restarting",
    ("running", "exited"): "restarting",
    ("restarting", "stop"): "stopped",
    ("failed", "stop"): "stopped",
    ("starting", "give_up"): "failed",
    ("restarting", "give_up"): "failed",
    ("starting", "stop"): "stopping",
    ("running", "stop"): "stopping",
    ("stopping", "exited"): "stopped",
}


@dataclass(frozen=True)
class Life:
    """What is known of an instance's present or last process.

    ``exit_code`` is negative for a signal, as ``subprocess`` has it. ``restarts`` counts the ends
    in a row that nobody asked for; a stable minute forgets them.
    """

    status: Status = "stopped"
    pid: int | None = None
    port: int | None = None
    restarts: int = 0
    exit_code: int | None = None
    error: str | None = None
    hint: str = ""
    log_lines: tuple[str, ...] = ()

    def after(self, event: Event, **changes: Any) -> Life:
        """The record that follows; ``InvalidState`` where the table has no such transition."""
        status = TRANSITIONS.get((self.status, event))
        if status is None:
            raise InvalidState(f"an instance that is {self.status} cannot take {event!r}")
        return replace(self, status=status, **changes)


def backoff(restart_delay: float, restarts: int, longest: float) -> float:
    """Seconds to wait before restart number ``restarts`` (from 1): doubled for each."""
    doubled = restart_delay * 2.0 ** min(max(restarts, 1) - 1, 30)
    return min(doubled, max(longest, restart_delay))
