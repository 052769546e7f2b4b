"""The thread that owns a living instance: it makes the process, waits, watches, and ends it.

The instance's state says what to do; whoever changes it rings the bell. Every wait here ends with
the bell, so that a stop interrupts whatever goes on.
"""

from __future__ import annotations

import logging
import signal
import sqlite3
import time
from typing import TYPE_CHECKING

from llamactl.errors import LlamactlError, StartFailed
from llamactl.instances.admission import Amount
from llamactl.instances.bell import Bell
from llamactl.instances.checkup import Checkup
from llamactl.instances.diagnosis import Diagnosis, diagnose
from llamactl.instances.health import Probe
from llamactl.instances.run import Run, make_run
from llamactl.instances.states import Status, backoff

if TYPE_CHECKING:
    from llamactl.instances.instance import Instance

logger = logging.getLogger(__name__)

_REPORTED_LINES = 20
#: In how many parts a load is cut by the looks at it, and the shortest of these in seconds.
_LOOKS = 50
_SHORTEST_POLL = 0.005
#: Other ports that are tried, without counting as a crash, when a stranger took the first.
_PORT_TRIES = 3


class Owner:
    """Works from ``starting`` until the instance is at rest."""

    def __init__(self, instance: Instance) -> None:
        self.bell = Bell()
        self._instance = instance
        self._shared = instance.shared
        self._timing = instance.shared.timing
        self._taken_ports: list[int] = []
        self._noted_use = instance.last_used_at

    def work(self) -> None:
        """The thread's whole life."""
        while True:
            with self._shared.lock:
                if self._instance.leave():
                    break
            try:
                self._step()
            except (LlamactlError, OSError, sqlite3.Error) as error:
                self._could_not(error)
            except Exception as error:
                # A bug must not leave the instance without its owner.
                logger.exception("%s: unexpected", self._instance.name)
                self._could_not(error)
        self.bell.close()

    def _step(self) -> None:
        """Do what the present state asks for."""
        with self._shared.lock:
            status = self._instance.status
            waits_for_place = bool(self._instance.predecessors)
        if status == "restarting":
            self._sit_out_backoff()
        elif status == "stopping":
            self._stopped(None)
        elif waits_for_place:
            self.bell.wait(None)
        else:
            self._await_memory()
            self._live(make_run(self._instance, self._taken_ports))

    def _await_memory(self) -> None:
        """Return when those that stopped for it have given back their memory, or soon after.

        A driver can take a moment for that, in which the next model would not fit.
        """
        instance, room = self._instance, self._shared.room
        if room.mode != "off" and not room.holds(instance.name):
            # Started again after a stop, perhaps with other options: it goes into its own room.
            _, demand = room.weigh(instance.options)
            with self._shared.lock:
                free = room.free()
                if demand is not None and free is not None and instance.status == "starting":
                    room.claim(instance.name, demand.spread(free), demand.pageable)
        deadline = time.monotonic() + self._timing.memory_back
        while self._is("starting") and (awaited := instance.awaited).total:
            room.look(within=0)
            with self._shared.lock:
                seen = room.seen
                if seen is None or seen.covers(awaited):
                    break
            if time.monotonic() > deadline:
                logger.warning("%s starts: not all memory that was expected is free", instance.name)
                break
            self.bell.wait(self._timing.memory_poll)
        instance.awaited = Amount()

    def _live(self, run: Run) -> None:
        """One process from its beginning to its end."""
        reason = None
        try:
            if not self._is("starting"):
                return
            run.launch()
            self._await_ready(run)
            reason = self._serve(run)
            reason = self._end(run, reason)
        finally:
            run.forget()
            self._note_use()
        with self._shared.lock:
            stopping = self._instance.status == "stopping"
        if stopping:
            self._stopped(run)
        else:
            self._crashed(run, reason)

    def _await_ready(self, run: Run) -> None:
        """Return when it answers, has ended, is to be stopped, or makes no progress."""
        instance = self._instance
        probe = Probe(run.host, run.port, run.key, self.bell.fileno())
        with self._shared.lock:
            instance.set_process(run.pid, run.port, run.key, run.files)
        began = time.monotonic()
        while self._is("starting") and not run.has_ended() and not run.stalled(self._timing):
            if probe.readiness(self._timing.probe) == "ready":
                with self._shared.lock:
                    if instance.status == "starting" and not run.has_ended():
                        run.ready_at = time.monotonic()
                        instance.became_ready()
                        return
            # A short load is looked at more often: the look comes late by little of its length.
            lately = (time.monotonic() - began) / _LOOKS
            self.bell.wait(max(_SHORTEST_POLL, min(self._timing.poll, lately)))

    def _serve(self, run: Run) -> Diagnosis | None:
        """Return when it has ended, is to be stopped, was idle for too long, or is wedged.

        That it is wedged is told only where it is to be restarted for it.
        """
        probe = Probe(run.host, run.port, run.key, self.bell.fileno())
        checkup = Checkup(self._instance, probe)
        look_at = time.monotonic() + self._timing.health_interval
        while self._is("running") and not run.has_ended():
            now = time.monotonic()
            if now >= look_at:
                if (why := checkup.look()) is not None:
                    return why
                self._note_use()
                look_at = time.monotonic() + self._timing.health_interval
            with self._shared.lock:
                idle_at = self._instance.idle_at(now)
                if now >= idle_at and self._instance.status == "running":
                    logger.info("%s was idle and stops", self._instance.name)
                    self._instance.stop()
            self.bell.wait(max(0.0, min(look_at, idle_at) - time.monotonic()))
        return None

    def _end(self, run: Run, reason: Diagnosis | None) -> Diagnosis | None:
        """End the process if it has not ended; why it was given up, if that is the reason.

        One with a ``reason`` is killed: it would not get to any farewell.
        """
        if run.has_ended():
            return reason
        given_up = self._is("starting")
        lines = self._instance.log.last_lines(_REPORTED_LINES)
        if reason is None:
            self._drain(run)
            run.signal(signal.SIGTERM)
            self._wait_for_end(run)
        while not run.has_ended():
            if reason is None:
                logger.warning("%s does not end by itself: SIGKILL", self._instance.name)
            run.signal(signal.SIGKILL)
            self._wait_for_end(run)
        return diagnose(None, lines) if given_up else reason

    def _drain(self, run: Run) -> None:
        """Give the requests that it serves a moment to end."""
        deadline = time.monotonic() + self._timing.drain
        while (left := deadline - time.monotonic()) > 0 and not run.has_ended():
            with self._shared.lock:
                if self._instance.in_flight == 0 or self._shared.hurry:
                    return
            self.bell.wait(left)

    def _wait_for_end(self, run: Run) -> None:
        deadline = time.monotonic() + self._timing.grace
        while (left := deadline - time.monotonic()) > 0 and not run.has_ended():
            if self._shared.hurry:
                run.signal(signal.SIGKILL)
            self.bell.wait(left)

    def _stopped(self, run: Run | None) -> None:
        """Its process is gone because that was asked for, so that no exit code is an error."""
        instance = self._instance
        if instance.stays_down:
            self._unwanted()
        with self._shared.lock:
            code = run.exit_code if run else None
            instance.apply("exited", pid=None, port=None, exit_code=code, restarts=0)
            again = instance.again and not self._shared.stopping
            instance.came_to_rest(for_good=not again)
            if again:
                instance.begin()

    def _crashed(self, run: Run, reason: Diagnosis | None) -> None:
        """Its process is gone unasked, or was given up for ``reason``."""
        instance = self._instance
        lines = instance.log.last_lines(_REPORTED_LINES)
        why = reason or diagnose(run.exit_code, lines)
        never_ready = run.ready_at is None
        if why.code == "port_taken" and never_ready and len(self._taken_ports) < _PORT_TRIES:
            logger.info("%s: port %d is taken, trying another", instance.name, run.port)
            self._taken_ports.append(run.port)
            return
        self._taken_ports.clear()
        logger.warning("%s: %s", instance.name, why.message)
        lived = time.monotonic() - run.ready_at if run.ready_at is not None else 0.0
        with self._shared.lock:
            if instance.status == "stopping":
                return
            stable = lived >= self._timing.stable
            instance.crashed(run.exit_code, why, lines, was_stable=stable)
            failed = instance.status == "failed"
        if failed:
            self._unwanted()

    def _sit_out_backoff(self) -> None:
        instance = self._instance
        with self._shared.lock:
            restarts = instance.life.restarts
            delay = instance.options.restart_delay
        pause = backoff(delay, restarts, self._timing.longest_backoff)
        deadline = time.monotonic() + pause
        while self._is("restarting") and (left := deadline - time.monotonic()) > 0:
            self.bell.wait(left)
        with self._shared.lock:
            if instance.status == "restarting":
                instance.begin(restarts=restarts)
        if instance.stays_down:
            self._unwanted()

    def _could_not(self, error: Exception) -> None:
        """Nothing could be started, or something broke on the way."""
        if not isinstance(error, LlamactlError):
            error = LlamactlError(f"it could not be run: {error}")
        logger.warning("%s: %s", self._instance.name, error.details)
        with self._shared.lock:
            if self._instance.status == "running":
                self._instance.apply("exited")
            if self._instance.status in ("starting", "restarting"):
                self._instance.give_up(StartFailed(error.message, hint=error.hint))
        self._unwanted()

    def _note_use(self) -> None:
        """Keep when it was used last: the next life of the server begins with that one."""
        used_at = self._instance.last_used_at
        if used_at is None or used_at == self._noted_use:
            return
        self._noted_use = used_at
        try:
            self._shared.store.used(self._instance.name, used_at)
        except sqlite3.Error as error:
            logger.warning("%s: %s", self._instance.name, error)

    def _unwanted(self) -> None:
        try:
            self._shared.store.unwanted(self._instance.name)
        except sqlite3.Error as error:
            logger.warning("%s: %s", self._instance.name, error)

    def _is(self, status: Status) -> bool:
        with self._shared.lock:
            return self._instance.status == status
