"""What ran when the server went down runs again: the last used first, each where there is room."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

from llamactl.instances.instance import Instance
from llamactl.instances.places import Places
from llamactl.instances.shared import Shared

logger = logging.getLogger(__name__)

#: How many are loaded at once.
AT_ONCE = 2
#: Seconds between two looks at those that load.
_LOOK_EVERY = 0.2


class Restoring:
    """A thread of its own: to look at the machine's memory can take a second for each."""

    def __init__(self, shared: Shared, places: Places) -> None:
        self._shared = shared
        self._places = places
        self._wanted: Sequence[Instance] = ()
        self._thread = threading.Thread(target=self._work, name="instance-restore", daemon=True)

    def start(self, wanted: Sequence[Instance]) -> None:
        """Look at the machine's memory, so that no request has to wait for that, and begin."""
        self._wanted = sorted(wanted, key=lambda each: each.last_used_at or 0.0, reverse=True)
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for its end, which the supervisor's stop brings about."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _work(self) -> None:
        self._whatever_happens(self._look, "the machine's memory")
        loading: list[Instance] = []
        for instance in self._wanted:
            self._wait_for_turn(loading)
            self._whatever_happens(partial(self._bring_up, instance), instance.name)
            loading.append(instance)

    def _whatever_happens(self, work: Callable[[], None], about: str) -> None:
        """A bug that one of them meets must not keep the others down."""
        try:
            work()
        except Exception:
            logger.exception("%s: unexpected", about)

    def _look(self) -> None:
        if self._shared.room.mode != "off":
            self._shared.room.look()

    def _bring_up(self, instance: Instance) -> None:
        self._places.weigh(instance)
        with self._shared.lock:
            if self._shared.stopping or instance.deleted or not instance.wanted_back:
                return
            if (error := self._places.restore(instance)) is None:
                return
            instance.stays_down_for(error)
        logger.warning("%s stays down: %s", instance.name, error.details)

    def _wait_for_turn(self, loading: list[Instance]) -> None:
        with self._shared.lock:
            while not self._shared.stopping:
                loading[:] = [each for each in loading if each.status == "starting"]
                if len(loading) < AT_ONCE:
                    return
                loading[0].changed.wait(_LOOK_EVERY)
