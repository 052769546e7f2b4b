"""The regular look at a running instance: whether it answers, and whether it gets any further."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from llamactl.instances.diagnosis import Diagnosis, wedged
from llamactl.instances.health import Probe
from llamactl.instances.progress import Progress, Sight
from llamactl.instances.slots import Slots, read_slots

if TYPE_CHECKING:
    from llamactl.instances.instance import Instance

logger = logging.getLogger(__name__)


class Checkup:
    """Looks at one process, and tells what it sees as the instance's ``health``.

    Nothing is ended for an answer that is late or wrong: a server that streams to everybody may
    have no thread left to answer. Slots are asked for only while somebody is served.
    """

    def __init__(self, instance: Instance, probe: Probe) -> None:
        self._instance = instance
        self._probe = probe
        self._answer = instance.shared.timing.health_answer
        self._after = instance.shared.config.instances.wedged_after
        self._progress = Progress()

    def look(self) -> Diagnosis | None:
        """Look once; the reason, where the instance is to be restarted."""
        instance = self._instance
        status = self._probe.status("/health", self._answer)
        stuck = self._stuck()
        why = wedged(stuck) if self._after and stuck >= self._after else None
        with instance.shared.lock:
            if instance.status != "running":
                return None
            before = instance.health
            busy = status is None and instance.in_flight
            health = "ok" if status == 200 else "busy" if busy else "unresponsive"
            instance.health = "wedged" if why else health
            if instance.health != before:
                instance.shared.changes += 1
        if why is None:
            if before == "wedged":
                logger.info("%s goes on", instance.name)
            return None
        if before != "wedged":
            logger.warning("%s is wedged: %s. %s", instance.name, why.message, why.hint)
        restart = instance.shared.config.instances.restart_wedged
        return why if restart and instance.options.auto_restart else None

    def _stuck(self) -> float:
        """For how many seconds it has served without getting further."""
        instance = self._instance
        if not self._after:
            return 0.0
        with instance.shared.lock:
            serves = instance.in_flight > 0
        slots = self._slots() if serves else None
        with instance.shared.lock:
            sight = Sight(serves, slots, instance.passed_on, all_seen=instance.unseen == 0)
        return self._progress.look(sight, time.monotonic())

    def _slots(self) -> Slots | None:
        body = self._probe.body("/slots", self._answer)
        return None if body is None else read_slots(body)
