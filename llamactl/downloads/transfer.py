"""The bytes of one job: connections, the hash that follows them, the record of what is durable.

Threads of a transfer: a worker for each connection, one that records, those that verify, and the
caller's own, which watches over the connections. A transfer ends with all files verified, with
the first error that no retry cures, or on ``halt``, within moments even if nothing moves.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llamactl.downloads.bandwidth import Bandwidth
from llamactl.downloads.progress import Pace
from llamactl.downloads.schedule import Schedule
from llamactl.downloads.target import Target
from llamactl.downloads.tuning import TUNING, Tuning
from llamactl.downloads.verification import CHUNK, digest_for
from llamactl.downloads.width import Width
from llamactl.downloads.worker import Patience, Worker
from llamactl.errors import (
    CacheNotWritable,
    ChecksumMismatch,
    Interrupted,
    LlamactlError,
    TransferError,
)

log = logging.getLogger(__name__)

_TICK = 0.05
#: A worker that is still in a name lookup or a connect is left to end by itself; it finds its line
#: and its partial closed.
_WORKER_LIMIT = 0.3
#: Hashing keeps one core busy at about the pace of a very fast line; a set of files can use more.
_VERIFIERS = 4


@dataclass(frozen=True)
class Activity:
    """What a transfer is doing beyond moving bytes: a Job's ``detail`` and ``retry_at``."""

    detail: str | None = None
    retry_at: float | None = None


class Transfer:
    """One run over the targets of a job; ``run`` may be called once."""

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        connections: int,
        patience: Patience,
        bandwidth: Bandwidth,
        halt: threading.Event,
        stop: threading.Event,
        verified: Callable[[Target], None],
        progressed: Callable[[], None],
        tuning: Tuning = TUNING,
    ) -> None:
        """``verified`` is called for each file, from a thread that verifies, once all of its bytes
        are right and on the disk; ``progressed`` whenever more bytes are durable. ``stop`` is
        set by the transfer when its threads shall end.
        """
        self.targets = targets
        self.tuning = tuning
        self.patience = patience
        self.bandwidth = bandwidth
        self.schedule = Schedule(targets, connections, tuning)
        self.stop = stop
        self._halt = halt
        self._verified = verified
        self._unverified = iter(targets)
        self._progressed = progressed
        self.pace = Pace()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._error: LlamactlError | None = None
        self._workers = [Worker(index, self) for index in range(self._worker_count(connections))]
        self._heard_at = time.monotonic()
        self._width = Width(
            connections, time.monotonic(), quiet=tuning.widen_after, burst=tuning.first_pause
        )
        self.schedule.set_width(self._width.now)

    def run(self) -> None:
        """Return when every file is verified.

        Raises the ``LlamactlError`` that ended it, or ``Interrupted`` after ``halt``.
        """
        self._heard_at = time.monotonic()
        workers = [
            self._thread(worker.work, f"download-{number}")
            for number, worker in enumerate(self._workers)
        ]
        hashing = range(min(_VERIFIERS, len(self.targets)))
        followers = [
            self._thread(self._record, "download-record"),
            *(self._thread(self._verify, f"download-verify-{number}") for number in hashing),
        ]
        for thread in workers + followers:
            thread.start()
        try:
            while not self._over.wait(_TICK) and not self._halt.is_set():
                self._watch()
        finally:
            self._end(workers, followers)
        if self._error is not None:
            raise self._error
        if not all(target.verified for target in self.targets):
            raise Interrupted

    def activity(self) -> Activity:
        """What to tell about it now."""
        if self.schedule.settled:
            return Activity("verifying")
        now = time.monotonic()
        if now - self._heard_at < min(
            self.tuning.shown_as_stalled, self.patience.stall_timeout / 2
        ):
            return Activity()
        waits = [worker.waiting for worker in self._workers]
        waiting = [wait for wait in waits if wait is not None]
        if any(worker.blocked_since is not None for worker in self._workers):
            return Activity("stalled")
        if waiting:
            first = min(waiting, key=lambda wait: wait.until)
            return Activity(first.why, first.until)
        return Activity()

    def heard(self) -> None:
        """A worker got bytes."""
        self._heard_at = time.monotonic()

    def overloaded(self) -> None:
        """A server asked for less."""
        with self._lock:
            self._width.overloaded(time.monotonic())
            self.schedule.set_width(self._width.now)

    def _worker_count(self, connections: int) -> int:
        smallest = max(1, self.tuning.request_size // 4)
        pieces = sum(-(-target.unclaimed.total // smallest) for target in self.targets)
        return max(1, min(connections, pieces))

    def _thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        return threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Interrupted:
            return
        except LlamactlError as error:
            self._fail(error)
        except Exception as error:
            log.exception("a download's thread failed")
            self._fail(TransferError(f"The download failed unexpectedly: {type(error).__name__}"))

    def _fail(self, error: LlamactlError) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
        self._over.set()

    def _watch(self) -> None:
        now = time.monotonic()
        self.pace.note(self.schedule.fetched)
        for worker in self._workers:
            since = worker.blocked_since
            if since is not None and now - since > self.patience.stall_timeout:
                worker.downlink.cut()
        with self._lock:
            busy = sum(worker.busy for worker in self._workers)
            self._width.look(now, self.schedule.fetched, busy)
            self.schedule.set_width(self._width.now)

    def _record(self) -> None:
        while self.schedule.wait_to_record(self.tuning.record_interval):
            before = sum(target.part.durable for target in self.targets)
            for target in self.targets:
                # A small file that is complete is made durable in a moment, once it is verified.
                if not (target.part.complete and target.file.size <= self.tuning.request_size):
                    target.part.record()
            self.schedule.recorded()
            self._progressed()
            if before == sum(target.part.durable for target in self.targets):
                self.stop.wait(_TICK)

    def _verify(self) -> None:
        """Verify one file after the other; with several threads, those of a set side by side."""
        while (target := self._next_to_verify()) is not None:
            while not self._is_right(target):
                if target.rejected:
                    target.part.reset()
                    raise ChecksumMismatch(
                        f"{target.file.filename} came twice with another sha256 than the hub's",
                        hint="Something on the way changes the bytes. Retry later, or use another "
                        "network or mirror.",
                    )
                log.warning("%s: wrong digest, fetching it again", target.file.filename)
                self.schedule.start_over(target)
                target.source.renew()
            target.part.seal()
            self.schedule.recorded()
            self._verified(target)
            target.verified = True
            self._progressed()
            if all(each.verified for each in self.targets):
                self._over.set()

    def _next_to_verify(self) -> Target | None:
        with self._lock:
            return next(self._unverified, None)

    def _is_right(self, target: Target) -> bool:
        """Follow the bytes of a file as they come and say whether its digest is the hub's."""
        digest = digest_for(target.file.oid, target.file.size)
        buffer = memoryview(bytearray(min(CHUNK, target.file.size)))
        position = 0
        while position < target.file.size:
            end = self.schedule.wait_for_bytes(target, position)
            if end == position:
                raise Interrupted
            while position < end:
                count = target.part.read(buffer[: end - position], position)
                if self.stop.is_set():
                    raise Interrupted
                if not count:
                    raise CacheNotWritable(f"{target.part.path.name} became shorter meanwhile")
                digest.update(buffer[:count])
                position += count
        if not self.schedule.wait_for_settled(target):
            raise Interrupted
        return digest.hexdigest() == target.file.oid

    def _end(
        self, workers: Sequence[threading.Thread], followers: Sequence[threading.Thread]
    ) -> None:
        self.stop.set()
        self.schedule.close()
        for worker in self._workers:
            worker.downlink.close()
        deadline = time.monotonic() + _WORKER_LIMIT
        for thread in workers:
            thread.join(max(0.0, deadline - time.monotonic()))
        for thread in followers:
            thread.join()
