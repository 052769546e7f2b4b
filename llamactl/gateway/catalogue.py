"""The models that can be named: instances, their aliases, and what routers have inside."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypedDict

from llamactl.access.principal import Principal
from llamactl.errors import InstanceNotFound
from llamactl.gateway.routing import MAXIMUM_NAME

if TYPE_CHECKING:
    from llamactl.instances.snapshot import InstanceSnapshot
    from llamactl.instances.supervisor import Supervisor

#: Seconds for which what a router told holds.
KEEP_SECONDS = 10.0


class NamedModelJson(TypedDict):
    """What a request may name as its model: an instance, an alias, or a router's model."""

    id: str
    object: str
    created: int
    owned_by: str


class Catalogue:
    """What may be named as a model. Thread-safe."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._lock = threading.Lock()
        self._told: dict[int, tuple[float, tuple[str, ...]]] = {}

    def models(self, principal: Principal) -> list[NamedModelJson]:
        """What ``principal`` may name, in OpenAI's form.

        A router's own models stand behind its name, ``NAME/MODEL``; they are asked only of one that
        runs.
        """
        return [
            {"id": name, "object": "model", "created": int(instance.created), "owned_by": owner}
            for instance in self._supervisor.instances()
            if principal.may_use(instance.id)
            for name, owner in self._names(instance)
        ]

    def _names(self, instance: InstanceSnapshot) -> Iterator[tuple[str, str]]:
        for name in (instance.name, *instance.options.aliases):
            yield name, "llamactl"
        if instance.options.is_router and instance.status == "running":
            for model in self._inside(instance):
                yield f"{instance.name}/{model}", instance.name

    def _inside(self, instance: InstanceSnapshot) -> tuple[str, ...]:
        with self._lock:
            at, models = self._told.get(instance.id, (-KEEP_SECONDS, ()))
        if time.monotonic() - at < KEEP_SECONDS:
            return models
        models = self._ask(instance.name)
        with self._lock:
            self._told[instance.id] = (time.monotonic(), models)
        return models

    def _ask(self, name: str) -> tuple[str, ...]:
        """The models that a router lists; none if it does not answer, or is gone."""
        try:
            listed = self._supervisor.router_models(name) or ()
        except InstanceNotFound:
            return ()
        return tuple(each.name for each in listed if len(each.name) <= MAXIMUM_NAME)
