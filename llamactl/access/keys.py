"""Keys: made, shown once, kept as digests, and asked on every request.

All live keys are held in memory, so that asking costs a hash and a comparison and never waits for
the disk. What a key was used for is counted in memory too and written now and then: a request, let
alone a failed guess, writes nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import logging
import secrets
import sqlite3
import string
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamactl.access.management import management_secrets
from llamactl.access.principal import Principal, management
from llamactl.access.records import KeyRecord, checked
from llamactl.config import Config
from llamactl.database import Database
from llamactl.errors import InvalidKey, InvalidRequest, KeyNotFound
from llamactl.secret import Secret

log = logging.getLogger(__name__)

PREFIX = "llc"
#: Usage that is not yet in the database is at most this old while requests come in.
FLUSH_SECONDS = 60.0
_MAXIMUM_KEY = 512
_PUBLIC_ALPHABET = string.ascii_letters + string.digits
_PUBLIC_LENGTH = 22


@dataclass
class _Entry:
    record: KeyRecord
    digest: bytes
    principal: Principal = field(init=False)
    dirty: bool = False

    def __post_init__(self) -> None:
        chosen = self.record.permission_mode == "per_instance"
        self.principal = Principal(
            "inference",
            self.record.name,
            self.record.id,
            frozenset(self.record.instance_ids) if chosen else None,
        )


class Keys:
    """The keys of this server. Thread-safe."""

    def __init__(
        self, config: Config, database: Database, clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] | None = None
        self._by_id: dict[int, _Entry] = {}
        self._management: tuple[tuple[bytes, Principal], ...] = ()
        self._latest = 0.0
        self._flushed = time.monotonic()
        self._on_delete: list[Callable[[int], None]] = []

    def start(self) -> None:
        """Read the keys; the database must be open. Raises ``ConfigError``."""
        with self._lock:
            self._loaded()

    def stop(self) -> None:
        """Write what is counted only in memory; the database must still be open."""
        self.flush()

    def on_delete(self, callback: Callable[[int], None]) -> None:
        """Have ``callback`` called with the id of each key that is deleted, after it is void."""
        self._on_delete.append(callback)

    def authenticate(self, presented: str) -> Principal:
        """Who holds this key. Raises ``InvalidKey``."""
        if len(presented) > _MAXIMUM_KEY or not presented.isascii():
            raise _invalid()
        digest = _digest(presented)
        with self._lock:
            entries = self._loaded()
            manager = _holder(digest, self._management)
            if manager is not None:
                return manager
            entry = entries.get(_public_id(presented))
            if entry is None or not hmac.compare_digest(digest, entry.digest):
                raise _invalid()
            expires_at = entry.record.expires_at
            if expires_at is not None and self._now() >= expires_at:
                raise InvalidKey("This key has expired", hint="Ask for a new one.")
            return entry.principal

    def create(
        self,
        name: str,
        permission_mode: str = "allow_all",
        instance_ids: Sequence[int] = (),
        expires_at: float | None = None,
    ) -> tuple[KeyRecord, Secret]:
        """Make a key. The secret exists only in this answer: what is kept is its digest.

        Raises ``InvalidRequest`` that names the field.
        """
        name = name.strip()
        mode = checked(name, permission_mode, instance_ids)
        with self._lock:
            entries = self._loaded()
            now = self._now()
            if expires_at is not None and not now < expires_at < 1e11:
                raise InvalidRequest(
                    "expires_at must be a time in the future, in unix seconds", field="expires_at"
                )
            public_id = "".join(secrets.choice(_PUBLIC_ALPHABET) for _ in range(_PUBLIC_LENGTH))
            presented = f"{PREFIX}_{public_id}_{secrets.token_urlsafe(32)}"
            ids = tuple(sorted(set(instance_ids))) if mode == "per_instance" else ()
            digest = _digest(presented)
            with self._database.write() as cursor:
                cursor.execute(
                    "INSERT INTO keys (public_id, name, digest, permission_mode, instance_ids,"
                    " created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (public_id, name, digest, mode, json.dumps(ids), now, expires_at),
                )
                key_id = int(cursor.lastrowid or 0)
            record = KeyRecord(key_id, public_id, name, mode, ids, now, expires_at, None, 0, 0)
            entries[public_id] = self._by_id[key_id] = _Entry(record, digest)
            return record, Secret(presented)

    def list(self) -> list[KeyRecord]:
        """All keys that were not deleted, newest first, expired ones too."""
        with self._lock:
            records = [entry.record for entry in self._loaded().values()]
        return sorted(records, key=lambda record: record.id, reverse=True)

    def get(self, key_id: int) -> KeyRecord:
        """One key. Raises ``KeyNotFound``."""
        with self._lock:
            return self._entry(key_id).record

    def delete(self, key_id: int) -> None:
        """Void a key for ever; what runs under it ends. Raises ``KeyNotFound``."""
        with self._lock:
            entry = self._entry(key_id)
            self._write([entry], revoked_at=self._now())
            del self._loaded()[entry.record.public_id], self._by_id[key_id]
        for callback in self._on_delete:
            callback(key_id)

    def count(self, key_id: int, *, requests: int = 0, tokens: int = 0) -> None:
        """Add to what a key was used for; kept in memory until ``flush``."""
        with self._lock:
            try:
                entry = self._entry(key_id)
            except KeyNotFound:
                return
            entry.record = dataclasses.replace(
                entry.record,
                requests=entry.record.requests + requests,
                tokens=entry.record.tokens + tokens,
                last_used_at=self._now(),
            )
            entry.dirty = True

    def flush(self) -> None:
        """Write the counts that are only in memory so far."""
        with self._lock:
            self._flushed = time.monotonic()
            if self._entries is None:
                return
            self._write([entry for entry in self._entries.values() if entry.dirty])

    def flush_if_due(self) -> None:
        """Flush if that was long ago; for the end of a request, when its client has its answer."""
        if time.monotonic() - self._flushed < FLUSH_SECONDS:
            return
        try:
            self.flush()
        except sqlite3.Error as error:
            log.warning("what the keys were used for could not be written: %s", error)

    def _write(self, entries: Sequence[_Entry], revoked_at: float | None = None) -> None:
        if not entries:
            return
        with self._database.write() as cursor:
            for entry in entries:
                cursor.execute(
                    "UPDATE keys SET last_used_at=?, requests=?, tokens=?, revoked_at=? WHERE id=?",
                    (
                        entry.record.last_used_at,
                        entry.record.requests,
                        entry.record.tokens,
                        revoked_at,
                        entry.record.id,
                    ),
                )
        for entry in entries:
            entry.dirty = False

    def _entry(self, key_id: int) -> _Entry:
        self._loaded()
        try:
            return self._by_id[key_id]
        except KeyError:
            raise KeyNotFound(f"There is no key {key_id}") from None

    def _loaded(self) -> dict[str, _Entry]:
        if self._entries is None:
            digests = [_digest(secret.reveal()) for secret in management_secrets(self._config)]
            self._management = tuple((each, management(_mark(each))) for each in digests)
            rows = self._database.read("SELECT * FROM keys WHERE revoked_at IS NULL")
            self._entries = {row["public_id"]: _from_row(row) for row in rows}
            self._by_id = {entry.record.id: entry for entry in self._entries.values()}
        return self._entries

    def _now(self) -> float:
        # A clock that is set back does not bring an expired key back to life.
        self._latest = max(self._latest, self._clock())
        return self._latest


def _digest(presented: str) -> bytes:
    # 256 random bits cannot be guessed however fast the hash: a slow one would only let
    # strangers burn our processor with wrong keys.
    return hashlib.sha256(presented.encode("ascii")).digest()


def _holder(digest: bytes, known: Sequence[tuple[bytes, Principal]]) -> Principal | None:
    # Every comparison is made, whichever matches: the time says nothing.
    found = [holder for one, holder in known if hmac.compare_digest(digest, one)]
    return found[0] if found else None


def _mark(digest: bytes) -> str:
    # A digest of the digest, and of that too little to test a guess by.
    return hashlib.sha256(b"mark" + digest).hexdigest()[:6]


def _public_id(presented: str) -> str:
    prefix, _, rest = presented.partition("_")
    public_id, _, _ = rest.partition("_")
    return public_id if prefix == PREFIX else ""


def _invalid() -> InvalidKey:
    return InvalidKey("This key is not known here")


def _from_row(row: Any) -> _Entry:
    record = KeyRecord(
        id=row["id"],
        public_id=row["public_id"],
        name=row["name"],
        permission_mode=row["permission_mode"],
        instance_ids=tuple(json.loads(row["instance_ids"])),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        requests=row["requests"],
        tokens=row["tokens"],
    )
    return _Entry(record, row["digest"])
