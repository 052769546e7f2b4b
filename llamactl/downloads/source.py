"""The address of one file's bytes: asked for when needed, and anew when it is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from llamactl.downloads.answers import Refused
from llamactl.errors import Interrupted, NetworkError, RateLimited
from llamactl.hub.remote import RemoteFile

#: After so many refusals in a row, each of a fresh address: one connection, then no ranges, then
#: the end. A 403 may mean an expired address, too many connections, or a range it dislikes.
ONE_CONNECTION_AFTER = 2
NO_RANGES_AFTER = 3
GIVE_UP_AFTER = 4


class Source:
    """Shared by all workers of a file: whoever comes first asks the hub, the others wait."""

    def __init__(
        self, name: str, resolve: Callable[[threading.Event], RemoteFile], halt: threading.Event
    ) -> None:
        self._name = name
        self._resolve = resolve
        self._halt = halt
        self._lock = threading.Lock()
        self._remote: RemoteFile | None = None
        self._generation = 0
        self._refusals = 0
        self._limited: RateLimited | None = None
        self._limited_until = 0.0

    def get(self) -> tuple[RemoteFile, int]:
        """The address and its generation; raises what the hub's client raises."""
        with self._lock:
            if self._halt.is_set():
                raise Interrupted
            if self._remote is None:
                self._remote = self._ask()
                self._generation += 1
            return self._remote, self._generation

    def _ask(self) -> RemoteFile:
        """Ask the hub, but for one that asked to be left alone: not before that time."""
        if self._limited is not None and time.monotonic() < self._limited_until:
            raise self._limited
        try:
            return self._resolve(self._halt)
        except RateLimited as error:
            self._limited = error
            # Not by the clock of the wall, which may be set back by a day meanwhile.
            self._limited_until = time.monotonic() + max(0.0, (error.retry_at or 0.0) - time.time())
            raise

    def renew(self) -> None:
        """Let the next ``get`` ask the hub."""
        with self._lock:
            self._remote = None

    def refused(self, generation: int, error: Refused) -> int:
        """Note that an address was refused; how many in a row were.

        Several connections may be refused with one address: that counts once. Raises
        ``NetworkError`` when fresh addresses do not help.
        """
        with self._lock:
            if generation == self._generation and self._remote is not None:
                self._remote = None
                self._refusals += 1
            if self._refusals >= GIVE_UP_AFTER:
                raise NetworkError(
                    f"The server does not give {self._name} out: {error}",
                    hint="Retry later: what was downloaded so far is kept.",
                ) from error
            return self._refusals

    def served(self) -> None:
        """Bytes came: earlier refusals are over."""
        if self._refusals:
            with self._lock:
                self._refusals = 0
