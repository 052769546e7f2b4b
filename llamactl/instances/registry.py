"""Which instances there are: made, changed, deleted, and read from the database."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

from llamactl.errors import (
    InstanceExists,
    InstanceNotFound,
    InstanceRunning,
    InvalidRequest,
    LlamactlError,
    MaxInstancesReached,
)
from llamactl.instances.instance import Instance
from llamactl.instances.options import Options, check_name
from llamactl.instances.run import preset_path
from llamactl.instances.shared import Shared
from llamactl.instances.store import StoredInstance

logger = logging.getLogger(__name__)

#: Seconds for the thread of an instance at rest to end.
_LAST_THREAD = 10.0


class Registry:
    """All instances by name. Reading wants the lock held; changing takes it itself."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._instances: dict[str, Instance] = {}
        #: One change at a time: the database is written without the lock.
        self._changing = threading.Lock()

    def load(self) -> list[Instance]:
        """Take the stored ones in; those that ran when the server went down."""
        rows = self._shared.store.all()
        with self._shared.lock:
            for row in rows:
                self._instances[row.name] = self._restored(row)
            return [self._instances[row.name] for row in rows if row.wanted]

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._instances.values())

    def find(self, name: str) -> Instance:
        """The one of that name; ``InstanceNotFound``."""
        found = self._instances.get(name)
        if found is None:
            raise InstanceNotFound(f"There is no instance {name[:60]!r}")
        return found

    def resolve(self, model: str) -> Instance | None:
        """The one of that name, else the one with that alias."""
        named = self._instances.get(model)
        return named or next((each for each in self if model in each.options.aliases), None)

    def create(self, name: str, options: Options) -> Instance:
        """A new one, stopped."""
        check_name(name)
        with self._changing:
            with self._shared.lock:
                self._check_new(name, options)
            created = time.time()
            number = self._shared.store.add(name, options.to_json(), created)
            with self._shared.lock:
                instance = Instance(self._shared, number, name, options, created)
                self._instances[name] = instance
                self._shared.changes += 1
        return instance

    def update(self, name: str, options: Options) -> Instance:
        """Replace its options; one that runs is restarted with them."""
        with self._changing:
            with self._shared.lock:
                instance = self.find(name)
                self._check_aliases(name, options)
            self._shared.store.update(name, options.to_json())
            with self._shared.lock:
                instance.options = options
                instance.unusable = ""
                self._shared.changes += 1
                if instance.status in ("starting", "running"):
                    instance.stop(again=True)
        return instance

    def delete(self, name: str, forget: Callable[[Instance], None]) -> None:
        """Remove it with its files; ``forget`` is called with the lock held."""
        with self._changing:
            with self._shared.lock:
                instance = self.find(name)
                if not instance.at_rest:
                    raise InstanceRunning(
                        f"The instance {name} is {instance.status}", hint="Stop it first."
                    )
                # From here on nobody finds it, so that nobody starts it.
                del self._instances[name]
                forget(instance)
                instance.deleted = True
                instance.changed.notify_all()
                self._shared.changes += 1
            instance.join(_LAST_THREAD)
            self._shared.store.remove(name)
            instance.log.delete()
            preset_path(self._shared.config, name).unlink(missing_ok=True)

    def _restored(self, row: StoredInstance) -> Instance:
        """An instance from the database; listed also when its options cannot be read any more."""
        unusable, options = "", Options()
        try:
            options = Options.parse(row.options, self._shared.config)
        except LlamactlError as error:
            unusable = f"its stored options cannot be used: {error.message}"
            logger.warning("%s: %s", row.name, unusable)
        instance = Instance(self._shared, row.id, row.name, options, row.created_at)
        instance.unusable = unusable
        instance.wanted_back = row.wanted
        instance.last_used_at = row.last_used_at
        # One that nobody ever asked was used longest ago, also where the machine came up just now.
        instance.last_used = time.monotonic() - max(0.0, time.time() - (row.last_used_at or 0.0))
        return instance

    def _check_new(self, name: str, options: Options) -> None:
        limit = self._shared.config.instances.max_instances
        if name in self._instances:
            raise InstanceExists(
                f"There is already an instance {name}",
                hint="Choose another name, or change that one.",
            )
        if 0 <= limit <= len(self._instances):
            raise MaxInstancesReached(
                f"There are already {len(self._instances)} instances",
                hint="Delete one, or raise instances.max_instances.",
            )
        self._check_aliases(name, options)

    def _check_aliases(self, name: str, options: Options) -> None:
        for other in self:
            if other.name == name:
                continue
            if name in other.options.aliases:
                raise InvalidRequest(f"{name} is an alias of the instance {other.name}")
            for alias in options.aliases:
                if alias == other.name or alias in other.options.aliases:
                    raise InvalidRequest(
                        f"The alias {alias} belongs to the instance {other.name}", field="aliases"
                    )
