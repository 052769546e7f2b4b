"""The room's face: all instances, what may be asked of them, and who may run.

Requests do not look whether an instance runs and then use it; they take a ``lease``, which starts
it if need be and keeps it from being stopped for idleness or for another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from llamactl.config import Config
from llamactl.database import Database
from llamactl.instances.backend import Backend, BackendInfo
from llamactl.instances.commandline import check_known
from llamactl.instances.figures import Figures, figures_of
from llamactl.instances.instance import Instance
from llamactl.instances.lease import Lease, Leases, never
from llamactl.instances.lifetime import Lifetime
from llamactl.instances.logfiles import Cut
from llamactl.instances.masking import unmasked
from llamactl.instances.memory import RECENT
from llamactl.instances.modelfiles import ResolvedModel, ResolveModel, with_cached_model
from llamactl.instances.options import Options
from llamactl.instances.places import Places
from llamactl.instances.plan import StartPlan
from llamactl.instances.ports import Ports
from llamactl.instances.preview import Preview, first_context, make_preview, warnings_of
from llamactl.instances.reaper import mark_prefix
from llamactl.instances.registry import Registry
from llamactl.instances.room import ReadMachine, Room
from llamactl.instances.router import RouterModel, read_models
from llamactl.instances.shared import Shared, Timing
from llamactl.instances.snapshot import InstanceSnapshot
from llamactl.instances.spawner import LocalSpawner, Spawner
from llamactl.instances.store import InstanceStore
from llamactl.instances.usage import users_of
from llamactl.instances.watcher import Watcher
from llamactl.models.fit import Machine

__all__ = ["ResolvedModel", "Supervisor", "Timing"]

#: For the list of a router's models.
_LIST_SECONDS = 2.0


class Supervisor:
    """All instances of one data directory. Thread-safe; nothing runs before ``start``."""

    def __init__(
        self,
        config: Config,
        database: Database,
        resolve_model: ResolveModel,
        *,
        timing: Timing | None = None,
        spawner: Spawner | None = None,
        read_machine: ReadMachine | None = None,
    ) -> None:
        first, last = config.instances.port_range
        backend, lock = Backend(config.llama_cpp), threading.RLock()
        self._config = config
        self._read_machine = read_machine or backend.machine
        self._shared = Shared(
            config=config,
            store=InstanceStore(database),
            resolve_model=resolve_model,
            backend=backend,
            spawner=spawner or LocalSpawner(),
            watcher=Watcher(),
            ports=Ports(first, last),
            room=Room(self._read_machine, resolve_model, config.instances.memory_admission, lock),
            lock=lock,
            timing=timing or Timing(),
            mark_prefix=mark_prefix(config.data_dir),
        )
        self._registry = Registry(self._shared)
        self._places = Places(self._shared, self._registry)
        self._leases = Leases(self._shared, self._places)
        self._shared.admit = self._places.admit
        self._lifetime = Lifetime(self._shared, self._registry, self._places)

    def start(self) -> None:
        """End what a former life left, then bring up what ran when the server went down."""
        self._lifetime.start()

    def request_stop(self, *, hurry: bool = False) -> None:
        """Begin to go down: no starts, no leases, every instance stops. Returns at once.

        With ``hurry`` nobody gets any grace; it may be asked for later, too.
        """
        self._lifetime.request_stop(hurry=hurry)

    def join(self, timeout: float) -> bool:
        """Wait until everything is down, at the end by force; False if something is left."""
        return self._lifetime.join(timeout)

    def instances(self) -> list[InstanceSnapshot]:
        """All of them, oldest first."""
        with self._shared.lock:
            return [instance.snapshot() for instance in self._registry]

    def get(self, name: str) -> InstanceSnapshot:
        """One of them; ``InstanceNotFound``."""
        with self._shared.lock:
            return self._registry.find(name).snapshot()

    def figures(self, name: str | None = None) -> Mapping[str, Figures]:
        """What each running instance costs and does now, by name; with ``name``, that one only.

        Takes milliseconds; an instance that serves somebody is asked, at most for a quarter second.
        """
        with self._shared.lock:
            sources = [
                source
                for each in self._registry
                if name in (None, each.name) and (source := each.source()) is not None
            ]
        return figures_of(sources)

    def router_models(self, name: str) -> Sequence[RouterModel] | None:
        """What a running router offers; None where none answers in time.

        Without a lease: to look at it is no use of it.
        """
        with self._shared.lock:
            source = self._registry.find(name).source()
        told = None if source is None else source.probe.body("/models", _LIST_SECONDS)
        return None if told is None else read_models(told)

    def create(self, name: str, options: Options) -> InstanceSnapshot:
        """A new instance, stopped.

        Raises ``InstanceExists``, ``InvalidInstanceName``, ``MaxInstancesReached``, and
        ``UnsupportedFlag`` for a flag that the installed llama-server does not have.
        """
        self._check_flags(options)
        instance = self._registry.create(name, unmasked(options, None))
        with self._shared.lock:
            return instance.snapshot()

    def update(self, name: str, options: Options) -> InstanceSnapshot:
        """Replace its options; one that runs is restarted with them. ``UnsupportedFlag``.

        A variable whose value is masked keeps the value that it has.
        """
        self._check_flags(options)
        with self._shared.lock:
            before = self._registry.find(name).options
        instance = self._registry.update(name, unmasked(options, before))
        with self._shared.lock:
            return instance.snapshot()

    def warnings(self, options: Options) -> list[str]:
        """What a start with these options would fail or be held up by now, in sentences."""
        return warnings_of(options, self._shared)

    def delete(self, name: str) -> None:
        """Remove it with its logs; ``InstanceRunning`` unless it is stopped or failed."""
        self._registry.delete(name, self._places.drop)

    def start_instance(self, name: str, wait: float | None = None) -> InstanceSnapshot:
        """Start it, or leave it running. With ``wait`` (seconds) return when it is there.

        Raises ``MaxInstancesReached`` when it would be one too many and none is idle; waiting,
        ``StartFailed`` with the reason, or ``StartTimeout``.
        """
        instance = self._found(name)
        self._places.weigh(instance)
        with self._shared.lock:
            instance = self._registry.find(name)
            self._places.start_now(instance)
            return self._wait_until_up(instance, wait)

    def stop_instance(self, name: str, wait: float | None = None) -> InstanceSnapshot:
        """Stop it, or leave it stopped. With ``wait`` (seconds) return when it is down."""
        with self._shared.lock:
            instance = self._registry.find(name)
            if comes_back := instance.wanted_back:
                instance.need_not_come_back()
        if comes_back:
            self._shared.store.unwanted(name)
        with self._shared.lock:
            self._places.drop(instance)
            instance.stops += 1
            instance.stop()
            if wait is not None:
                instance.changed.wait_for(lambda: instance.at_rest, wait)
            return instance.snapshot()

    def restart_instance(self, name: str, wait: float | None = None) -> InstanceSnapshot:
        """Stop it if it runs, and start it."""
        self._places.weigh(self._found(name))
        with self._shared.lock:
            instance = self._registry.find(name)
            if instance.status in ("starting", "running"):
                instance.stop(again=True)
            else:
                self._places.start_now(instance)
            return self._wait_until_up(instance, wait)

    def logs(self, name: str, lines: int | None = None) -> bytes:
        """The last ``lines`` lines that it wrote, or all that are at hand."""
        return self._found(name).log.tail(lines)

    def whole_log(self, name: str) -> Cut:
        """All that is kept of what it wrote, whatever its size; whoever asks closes it."""
        return self._found(name).log.whole()

    def follow_logs(self, name: str, lines: int | None = 0) -> Iterator[bytes]:
        """The last ``lines`` lines, all at hand for None, and what it writes after them.

        ``b""`` every few seconds without any. Ends with the instance and with the server.
        """
        instance = self._found(name)
        return instance.log.follow(lambda: instance.deleted or self._shared.stopping, lines)

    def resolve_name(self, model: str) -> InstanceSnapshot | None:
        """The instance of that name, else the one with that alias."""
        with self._shared.lock:
            found = self._registry.resolve(model)
            return found.snapshot() if found else None

    def lease(
        self,
        name: str,
        *,
        timeout: float | None = None,
        cancelled: Callable[[], bool] = never,
    ) -> Lease:
        """The right to use a running instance, which is started if need be and if it may be.

        ``timeout`` (seconds, ``on_demand_start_timeout`` by default) bounds the waiting, and
        ``cancelled`` is asked meanwhile whether anybody still waits. Raises ``InstanceNotFound``,
        ``InstanceNotRunning``, ``StartFailed``, ``StartTimeout``, ``MaxInstancesReached``,
        ``ShuttingDown``, ``Interrupted``.
        """
        seconds = self._config.instances.on_demand_start_timeout if timeout is None else timeout
        with self._shared.lock:
            instance = self._registry.find(name)
        return self._leases.take(instance, seconds, cancelled)

    def users_of(self, paths: Sequence[Path]) -> list[str]:
        """The names of instances, neither stopped nor failed, that use one of these files.

        A router that runs is asked what it has loaded, which takes two seconds at most.
        """
        with self._shared.lock:
            alive = [each.user() for each in self._registry if not each.at_rest]
        return users_of(paths, alive, self._shared.resolve_model)

    def plan(self, name: str) -> StartPlan:
        """What a start of it would do now; nothing is done."""
        return self._places.plan(self._found(name))

    def with_cached_model(self, options: Options) -> Options:
        """With the cached model by its reference, where they have llama-server fetch that."""
        return with_cached_model(options, self._shared.resolve_model)

    def preview(self, name: str, options: Options) -> Preview:
        """What an instance with these options would run and take. ``UnsupportedFlag``."""
        self._check_flags(options)
        return make_preview(options, name, self._shared)

    def first_context(self, options: Options, contexts: Sequence[int]) -> int | None:
        """The largest of these contexts (tokens) that fits now; None where that is not known."""
        return first_context(options, contexts, self._shared)

    def backend(self) -> BackendInfo:
        """The llama.cpp that would run now."""
        return self._shared.backend.describe()

    def backend_output(self, flag: str) -> str | None:
        """What it prints for ``--help``, ``--version`` or ``--list-devices``; None without one."""
        return self._shared.backend.output_of(flag)

    def machine(self) -> Machine:
        """The memory of this machine and of llama.cpp's devices, as it is now."""
        return self._read_machine(RECENT)

    def version(self) -> int:
        """A number that changes whenever anything about any instance does."""
        return self._shared.changes

    def _check_flags(self, options: Options) -> None:
        """Name a flag that would end the start, as soon as it is saved."""
        if not options.command_override:
            check_known(options, self._shared.backend.known_flags())

    def _found(self, name: str) -> Instance:
        with self._shared.lock:
            return self._registry.find(name)

    def _wait_until_up(self, instance: Instance, wait: float | None) -> InstanceSnapshot:
        if wait is None:
            return instance.snapshot()
        settled = instance.changed.wait_for(
            lambda: instance.status in ("running", "failed", "stopped"), wait
        )
        if instance.status == "failed":
            raise instance.failure()
        if not settled:
            raise instance.late(wait)
        return instance.snapshot()
