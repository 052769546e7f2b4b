"""One connection's work: claim bytes, ask for them, put them in their place, and again."""

from __future__ import annotations

import contextlib
import http.client
import random
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Literal, Protocol

import urllib3

from llamactl.downloads import answers, source
from llamactl.downloads.bandwidth import Bandwidth
from llamactl.downloads.downlink import Answer, Downlink
from llamactl.downloads.partfile import PartClosed
from llamactl.downloads.schedule import Schedule
from llamactl.downloads.target import Claim, Target
from llamactl.downloads.tuning import KIB, Tuning
from llamactl.errors import Interrupted, NetworkError, RateLimited
from llamactl.hub.limits import LONGEST, UNNAMED_WAIT, asked_wait
from llamactl.hub.remote import RemoteFile

_CONNECTION_ERRORS = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
#: A read grows and shrinks so that it takes about this long: a watchdog sees silence within one.
_QUICK_READ, _SLOW_READ = 0.1, 0.5
_SMALLEST_READ = 4 * KIB
_FIRST_READ = 64 * KIB
#: An attempt that brought less than this is followed by a pause, like one that brought nothing.
_WORTHWHILE = 64 * KIB
_SHOWN_OF_A_BODY = 300

Why = Literal["retrying", "rate_limited"]


class Broken(Exception):
    """The connection ended before the bytes did."""


@dataclass(frozen=True)
class Patience:
    """``stall_timeout`` in seconds; ``retry_limit`` failures in a row without a byte."""

    stall_timeout: float
    retry_limit: int


@dataclass(frozen=True)
class Waiting:
    """Why a worker fetches nothing for a while; ``until`` is unix seconds."""

    why: Why
    until: float


class Crew(Protocol):
    """What the workers of one transfer share."""

    schedule: Schedule
    bandwidth: Bandwidth
    tuning: Tuning
    patience: Patience
    stop: threading.Event

    def heard(self) -> None: ...

    def overloaded(self) -> None: ...


class Worker:
    """Runs in a thread of its own.

    The watchdog reads ``blocked_since`` and may cut the line; ``busy`` is the processor time that
    it has used, in seconds.
    """

    def __init__(self, index: int, crew: Crew) -> None:
        self._index = index
        self._crew = crew
        self.downlink = Downlink(crew.tuning.connect_timeout, 2 * crew.patience.stall_timeout)
        self.blocked_since: float | None = None
        self.waiting: Waiting | None = None
        self.busy = 0.0
        self._read_size = min(_FIRST_READ, crew.tuning.read_size)
        self._latency = 0.0
        self._pace = 0.0
        self._failures = 0
        self._dry = 0
        self._dry_since = -1

    def work(self) -> None:
        """Fetch until the schedule has nothing more; raises what ends the whole transfer."""
        try:
            while claim := self._crew.schedule.take(self._index, self._request_size()):
                try:
                    pause = self._try(claim)
                finally:
                    self.blocked_since = None
                    self._crew.schedule.release(claim)
                self._pause(pause)
        except (Interrupted, PartClosed):
            return
        finally:
            self.downlink.release()

    def _request_size(self) -> int:
        """A piece, or more where the way to the server would cost a good part of the time."""
        tuning = self._crew.tuning
        worth_the_wait = int(10 * self._latency * self._pace)
        return min(tuning.longest_request, max(tuning.request_size, worth_the_wait))

    def _try(self, claim: Claim) -> Waiting | None:
        """One attempt at a claim; how long to wait after it, if it failed."""
        target = claim.target
        before = target.part.received if claim.whole else claim.position
        try:
            remote, generation = target.source.get()
        except RateLimited as error:
            return Waiting("rate_limited", error.retry_at or time.time() + UNNAMED_WAIT)
        except NetworkError as error:
            return self._failed(target, error.message, 0)
        try:
            self._fetch(claim, remote)
        except answers.RangeIgnored as error:
            self._crew.schedule.ranges_ignored(target)
            reason = str(error)
        except answers.Changed as error:
            target.source.renew()
            reason = str(error)
        except answers.Refused as error:
            self._refused(target, generation, error)
            reason = str(error)
        except answers.Busy as error:
            if error.overloaded:
                self._crew.overloaded()
            return self._busy(target, error)
        except (answers.WrongAnswer, Broken) as error:
            reason = str(error)
        except _CONNECTION_ERRORS as error:
            if self._crew.stop.is_set():
                raise Interrupted from error
            reason = _described(error)
        else:
            self._failures = self._dry = 0
            return None
        now = target.part.received if claim.whole else claim.position
        return self._failed(target, reason, now - before)

    def _fetch(self, claim: Claim, remote: RemoteFile) -> None:
        size = claim.target.file.size
        wanted = answers.Wanted(claim.position, claim.end, size, whole=claim.whole)
        asked = self.blocked_since = time.monotonic()
        answer = self.downlink.get(remote.url, {**remote.headers, **wanted.headers})
        try:
            try:
                position = answers.body_offset(answer.status, answer.headers, wanted)
            except answers.AnswerError as error:
                _say_more(error, answer)
                raise
            began = time.monotonic()
            self._latency = began - asked
            claim.target.part.etag = answer.headers.get("ETag", "")
            self._copy(answer, claim, position)
            self._pace = (wanted.end - wanted.start) / max(1e-6, time.monotonic() - began)
        finally:
            self.blocked_since = None
            answer.close()

    def _copy(self, answer: Answer, claim: Claim, position: int) -> None:
        crew = self._crew
        while position < claim.end:
            granted = crew.bandwidth.take(self._read_size, crew.stop)
            count = crew.schedule.admit(claim, granted)
            if crew.stop.is_set():
                raise Interrupted
            began = self.blocked_since = time.monotonic()
            if claim.whole:
                came = self._read_missing(answer, claim, position, count)
            else:
                came = self._receive(answer, claim, position, count)
            self.blocked_since = None
            if not came:
                raise Broken("the connection ended before the bytes did")
            crew.bandwidth.give_back(granted - came)
            crew.heard()
            claim.target.source.served()
            position += came
            self._adapt(time.monotonic() - began)
            self.busy = time.thread_time()

    def _receive(self, answer: Answer, claim: Claim, position: int, count: int) -> int:
        part = claim.target.part
        if answer.movable:
            came = part.fill(position, lambda file: answer.move(file, position, count))
        else:
            data = answer.read(count)
            part.write(data, position)
            came = len(data)
        self._crew.schedule.advance(claim, came)
        return came

    def _read_missing(self, answer: Answer, claim: Claim, position: int, count: int) -> int:
        """Write what is not there yet of a stream that began at the file's first byte."""
        data = answer.read(count)
        end, new = position + len(data), 0
        for start, stop in claim.target.part.missing():
            start, stop = max(start, position), min(stop, end)
            if start < stop:
                claim.target.part.write(data[start - position : stop - position], start)
                new += stop - start
        self._crew.schedule.advance(claim, new)
        self._crew.schedule.skip(claim, len(data) - new)
        return len(data)

    def _adapt(self, seconds: float) -> None:
        if seconds < _QUICK_READ:
            self._read_size = min(self._crew.tuning.read_size, self._read_size * 2)
        elif seconds > _SLOW_READ:
            self._read_size = max(_SMALLEST_READ, self._read_size // 2)

    def _refused(self, target: Target, generation: int, error: answers.Refused) -> None:
        refusals = target.source.refused(generation, error)
        if refusals >= source.ONE_CONNECTION_AFTER:
            whole = refusals >= source.NO_RANGES_AFTER
            self._crew.schedule.narrow_target(target, whole=whole)

    def _busy(self, target: Target, error: answers.Busy) -> Waiting | None:
        waiting = self._failed(target, str(error), 0)
        why: Why = "rate_limited" if error.status == 429 else "retrying"
        until = max(waiting.until if waiting else 0.0, time.time() + (error.wait or 0.0))
        return Waiting(why, until)

    def _failed(self, target: Target, reason: str, brought: int) -> Waiting | None:
        """Count a failure; how long to wait before the next attempt.

        Raises ``NetworkError`` when there were too many in a row and no connection of the whole
        transfer brought a byte meanwhile.
        """
        crew = self._crew
        if crew.schedule.fetched != self._dry_since:
            self._dry_since = crew.schedule.fetched
            self._dry = 0
        self._dry += 1
        if self._dry >= crew.patience.retry_limit:
            times = f" ({self._dry} failures in a row)" if self._dry > 1 else ""
            raise NetworkError(
                f"{target.file.filename}: {reason}{times}",
                hint="Check the connection, then retry: what was downloaded so far is kept.",
            )
        self._failures = 0 if brought >= _WORTHWHILE else self._failures + 1
        if self._failures < 2:
            return None
        tuning = crew.tuning
        pause = min(tuning.longest_pause, tuning.first_pause * 2.0 ** (self._failures - 2))
        return Waiting("retrying", time.time() + pause * random.uniform(0.7, 1.3))

    def _pause(self, waiting: Waiting | None) -> None:
        if waiting is None:
            return
        self.waiting = waiting
        try:
            # A clock that is set back must not make a day of it.
            seconds = min(max(0.0, waiting.until - time.time()), LONGEST)
            if self._crew.stop.wait(seconds):
                raise Interrupted
        finally:
            self.waiting = None


def _say_more(error: answers.AnswerError, answer: Answer) -> None:
    """Add what the server says about it, and how long it wants to be left alone."""
    if isinstance(error, answers.Busy):
        error.wait = asked_wait(answer.headers, time.time())
    if answer.status >= 400:
        with contextlib.suppress(*_CONNECTION_ERRORS):
            body = answer.read(_SHOWN_OF_A_BODY)
            text = " ".join(body.decode("utf-8", "replace").split())
            if text.isprintable() and text:
                error.args = (f"{error}: {text}", *error.args[1:])


def _described(error: Exception) -> str:
    """What went wrong with a connection, without the address and its signature."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the server's certificate is not trusted: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "the server does not answer"
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "the server's name cannot be resolved"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "no connection to the server"
    return f"the connection broke ({type(error).__name__})"
