"""How a supervisor begins and ends, with all of its instances."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from llamactl.instances.instance import Instance
from llamactl.instances.places import Places
from llamactl.instances.reaper import reap_leftovers
from llamactl.instances.registry import Registry
from llamactl.instances.restoring import Restoring
from llamactl.instances.shared import Shared

logger = logging.getLogger(__name__)

#: The end of the time for a stop, in which nobody gets any grace.
_BY_FORCE = 2.0


class Lifetime:
    """Its methods are those of the supervisor, which say what they do."""

    def __init__(self, shared: Shared, registry: Registry, places: Places) -> None:
        self._shared = shared
        self._registry = registry
        self._places = places
        self._restoring = Restoring(shared, places)
        self._started = False

    def start(self) -> None:
        shared = self._shared
        reap_leftovers(shared.store, shared.mark_prefix)
        shared.spawner.start()
        shared.watcher.start()
        self._started = True
        if warning := shared.backend.warning():
            logger.warning("%s", warning)
        self._restoring.start(self._registry.load())

    def request_stop(self, *, hurry: bool) -> None:
        with self._shared.lock:
            self._shared.stopping = True
            self._shared.hurry = self._shared.hurry or hurry
            self._places.clear()
            for instance in self._registry:
                if not instance.at_rest:
                    instance.stop()
                instance.log.end_followers()
                instance.changed.notify_all()

    def join(self, timeout: float) -> bool:
        if not self._started:
            return True
        deadline = time.monotonic() + timeout
        with self._shared.lock:
            instances = list(self._registry)
        done = _all_end(instances, deadline - min(_BY_FORCE, timeout / 2))
        if not done:
            with self._shared.lock:
                self._shared.hurry = True
                for instance in instances:
                    instance.ring()
            done = _all_end(instances, deadline)
        for instance in instances:
            instance.log.close()
        # The spawner's end is the end of every child: nothing survives it, whatever happened above.
        self._shared.spawner.stop()
        self._restoring.join(max(0.0, deadline - time.monotonic()))
        self._shared.watcher.stop()
        self._started = False
        return done


def _all_end(instances: Sequence[Instance], deadline: float) -> bool:
    left = [each for each in instances if not each.join(max(0.0, deadline - time.monotonic()))]
    return not left
