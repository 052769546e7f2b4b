"""Which worker fetches which bytes: one queue of pieces over all files of a job, in order.

In order, so that the hash can follow closely behind; pieces rather than a share of the file for
each worker, so that a slow connection holds up nothing but its own piece. Towards the end pieces
become smaller, and when none is left an idle worker takes half of the slowest one's rest.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from llamactl.downloads.target import Claim, Target
from llamactl.downloads.tuning import Tuning

_LOOK_AGAIN = 0.25


class Schedule:
    """Thread-safe; the only one that changes a target's claims.

    Unrecorded bytes were written and are not in a sidecar yet. There are never more of them than
    a piece for each connection less what its request asks for, so that a kill at any moment costs
    no more than a piece for each.
    """

    def __init__(self, targets: Sequence[Target], connections: int, tuning: Tuning) -> None:
        self.targets = targets
        self._tuning = tuning
        self._most_unrecorded = connections * (tuning.piece_size - tuning.request_size)
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._arrived = threading.Condition(self._lock)
        self._recorded = threading.Condition(self._lock)
        self._to_record = threading.Condition(self._lock)
        self._width = 1
        self._closed = False
        self._unrecorded = 0
        self.fetched = 0

    def set_width(self, width: int) -> None:
        """So many workers may fetch at once."""
        if width != self._width:
            with self._lock:
                self._width = width
                self._work.notify_all()

    def close(self) -> None:
        """Nothing more is to be done: everybody who waits here goes on with nothing."""
        with self._lock:
            self._closed = True
            for condition in (self._work, self._arrived, self._recorded, self._to_record):
                condition.notify_all()

    @property
    def settled(self) -> bool:
        """Whether all bytes are there, verified or not."""
        with self._lock:
            return all(target.settled for target in self.targets)

    def take(self, worker: int, most: int) -> Claim | None:
        """The next bytes for a worker, waiting until there are some; None at the end."""
        with self._lock:
            while not self._closed:
                if worker < self._width and self._unrecorded < self._most_unrecorded:
                    claim = self._next(most)
                    if claim is not None:
                        return claim
                self._work.wait(_LOOK_AGAIN)
        return None

    def advance(self, claim: Claim, count: int) -> None:
        """``count`` more bytes of the claim are written."""
        with self._lock:
            claim.position += count
            self._unrecorded += count
            self.fetched += count
            self._arrived.notify_all()
            if self._unrecorded * 2 >= self._most_unrecorded:
                self._to_record.notify_all()

    def skip(self, claim: Claim, count: int) -> None:
        """``count`` bytes that came were there already."""
        with self._lock:
            claim.position += count

    def release(self, claim: Claim) -> None:
        """The worker is done with the claim, all of it or not."""
        with self._lock:
            claim.target.give_back(claim)
            self._work.notify_all()
            self._arrived.notify_all()

    def admit(self, claim: Claim, most: int) -> int:
        """How many of the claim's bytes may be read now; 0 after ``close``.

        Waits while too many bytes are not recorded: the disk is slower than the line.
        """
        with self._lock:
            while self._unrecorded >= self._most_unrecorded and not self._closed:
                self._recorded.wait()
            count = 0 if self._closed else min(most, claim.end - claim.position)
            claim.reading_up_to = claim.position + count
            return count

    def wait_for_bytes(self, target: Target, position: int) -> int:
        """Up to where ``target`` can be read from ``position``; that itself after ``close``."""
        with self._lock:
            while not self._closed:
                end = target.part.run_end(position)
                if end > position:
                    return end
                self._arrived.wait()
        return position

    def wait_for_settled(self, target: Target) -> bool:
        """Wait until nobody fetches for ``target``; False after ``close``."""
        with self._lock:
            while not self._closed and not target.settled:
                self._arrived.wait()
            return not self._closed

    def wait_to_record(self, interval: float) -> bool:
        """Wait until recording is due; False after ``close``."""
        with self._lock:
            if not self._closed and self._unrecorded * 2 < self._most_unrecorded:
                self._to_record.wait(interval)
            return not self._closed

    def recorded(self) -> None:
        """More bytes are in the sidecars."""
        with self._lock:
            self._count_unrecorded()

    def ranges_ignored(self, target: Target) -> None:
        """A range of ``target`` was answered with the whole file; twice means it always is."""
        with self._lock:
            target.ranges_ignored += 1
            if target.ranges_ignored > 1:
                target.whole = True

    def narrow_target(self, target: Target, *, whole: bool) -> None:
        """Fetch ``target`` over one connection from now on; ``whole``: without ranges too."""
        with self._lock:
            target.single = True
            target.whole = target.whole or whole

    def start_over(self, target: Target) -> None:
        """The bytes of ``target`` had the wrong digest: fetch all of them again."""
        with self._lock:
            target.start_over()
            self._count_unrecorded()
            self._work.notify_all()

    def _count_unrecorded(self) -> None:
        parts = [target.part for target in self.targets]
        self._unrecorded = sum(part.received - part.durable for part in parts)
        self._recorded.notify_all()
        self._work.notify_all()

    def _next(self, most: int) -> Claim | None:
        request = self._tuning.request_size
        left = sum(target.unclaimed.total for target in self.targets)
        fair = max(request // 4, left // (2 * self._width))
        for target in self.targets:
            claim = target.claim(request if target.file.size <= request else min(most, fair))
            if claim is not None:
                return claim
        return self._half_of_the_slowest()

    def _half_of_the_slowest(self) -> Claim | None:
        settled = self._tuning.steal_above
        pace = {c: c.seconds_left(settled) for target in self.targets for c in target.claims}
        slowest = max(pace, key=pace.__getitem__, default=None)
        if slowest is None or pace[slowest] < settled:
            return None
        return slowest.target.split(slowest)
