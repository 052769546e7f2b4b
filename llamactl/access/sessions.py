"""Sessions of the pages, kept on the server so that a logout really ends them.

The cookie holds 256 random bits; the database holds a digest. The digest covers the management keys
too: whoever replaces them ends every session that was opened with the old ones.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from llamactl.access.management import management_secrets
from llamactl.config import Config
from llamactl.database import Database
from llamactl.secret import Secret

IDLE_SECONDS = 12 * 3600.0
ABSOLUTE_SECONDS = 7 * 86400.0
#: A session's last use is written at most this often: looking at pages costs no disk.
_SEEN_SECONDS = 60.0
_MAXIMUM_COOKIE = 128


@dataclass(frozen=True)
class Session:
    """An open session. ``csrf`` is the token that its forms carry."""

    digest: bytes
    csrf: str
    created_at: float
    last_seen_at: float

    @property
    def label(self) -> str:
        """Which one it is, for the audit. The digest opens nothing."""
        return f"session {self.digest.hex()[:6]}"

    def csrf_matches(self, presented: str | None) -> bool:
        """Whether a form's token is this session's, compared in constant time."""
        sent = (presented or "").encode("utf-8", "replace")
        return hmac.compare_digest(self.csrf.encode("ascii"), sent)


class Sessions:
    """The open sessions. Thread-safe."""

    def __init__(
        self, config: Config, database: Database, clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._pepper: bytes | None = None

    def create(self) -> tuple[Secret, Session]:
        """Open a session: the value for its cookie, and the session. Old ones are swept."""
        cookie = Secret(secrets.token_urlsafe(32))
        now = self._clock()
        session = Session(self._digest(cookie.reveal()), secrets.token_urlsafe(32), now, now)
        with self._database.write() as cursor:
            cursor.execute(
                "DELETE FROM sessions WHERE last_seen_at < ? OR created_at < ?",
                (now - IDLE_SECONDS, now - ABSOLUTE_SECONDS),
            )
            cursor.execute(
                "INSERT INTO sessions (digest, csrf, created_at, last_seen_at) VALUES (?, ?, ?, ?)",
                (session.digest, session.csrf, now, now),
            )
        return cookie, session

    def find(self, cookie: str | None) -> Session | None:
        """The session of a cookie's value; None if there is none, or it has run out."""
        if not cookie or len(cookie) > _MAXIMUM_COOKIE or not cookie.isascii():
            return None
        rows = self._database.read(
            "SELECT * FROM sessions WHERE digest = ?", (self._digest(cookie),)
        )
        if not rows:
            return None
        session = Session(**rows[0])
        now = self._clock()
        if now - session.last_seen_at > IDLE_SECONDS or now - session.created_at > ABSOLUTE_SECONDS:
            self._delete(session.digest)
            return None
        if now - session.last_seen_at > _SEEN_SECONDS:
            with self._database.write() as cursor:
                cursor.execute(
                    "UPDATE sessions SET last_seen_at = ? WHERE digest = ?", (now, session.digest)
                )
        return session

    def end(self, cookie: str | None) -> None:
        """Close the session of a cookie's value, if it is open."""
        if cookie and cookie.isascii():
            self._delete(self._digest(cookie))

    def end_all(self) -> int:
        """Close every session that is open, whoever opened it; how many there were."""
        with self._database.write() as cursor:
            return cursor.execute("DELETE FROM sessions").rowcount

    def count(self) -> int:
        """How many sessions are open."""
        now = self._clock()
        rows = self._database.read(
            "SELECT count(*) FROM sessions WHERE last_seen_at >= ? AND created_at >= ?",
            (now - IDLE_SECONDS, now - ABSOLUTE_SECONDS),
        )
        return int(rows[0][0])

    def _delete(self, digest: bytes) -> None:
        with self._database.write() as cursor:
            cursor.execute("DELETE FROM sessions WHERE digest = ?", (digest,))

    def _digest(self, cookie: str) -> bytes:
        with self._lock:
            if self._pepper is None:
                known = sorted(secret.reveal() for secret in management_secrets(self._config))
                self._pepper = hashlib.sha256("\n".join(known).encode()).digest()
            pepper = self._pepper
        return hmac.new(pepper, cookie.encode("ascii"), hashlib.sha256).digest()
