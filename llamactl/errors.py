"""The errors that llamactl tells a person about; a room may add its own below one of these.

A message says what is wrong, a hint says what to do about it, and ``code`` is the stable word that
scripts match on. The web floor maps classes to statuses in one table; nothing else does.

    LlamactlError
    ├── ConfigError                 the start is refused (exit 2)
    ├── InvalidRequest              what was sent cannot be understood
    │   ├── InvalidInstanceName
    │   ├── UnsupportedBackend
    │   └── UnsupportedFlag
    ├── NotFound
    │   ├── JobNotFound, ModelNotFound, InstanceNotFound, KeyNotFound
    ├── Conflict                    right, but not now
    │   ├── InvalidState, ModelInUse, InstanceExists, InstanceRunning,
    │   └── MaxInstancesReached, InsufficientMemory, NameCollision
    ├── Unavailable                 try again later
    │   ├── InstanceNotRunning, StartFailed, StartTimeout, ShuttingDown, UpstreamGone
    ├── TooManyRequests
    │   └── QueueFull
    ├── AccessDenied
    │   ├── MissingKey, InvalidKey, PermissionDenied
    └── TransferError               a download cannot go on; the code becomes the job's error_code
        ├── RepoNotFound, EntryNotFound, GatedRepo, Unauthorized, DisabledRepo, NoSuchTag
        ├── IncompleteSet, BadMetadata, ChecksumMismatch
        ├── InsufficientSpace, CacheNotWritable, HubOffline
        └── RateLimited, NetworkError             (transient: worth another try)

``Interrupted`` is no error: it is how a wait says that it was told to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


def sentence_start(text: str) -> str:
    """The text with a capital at its beginning, unless that is a path or a name."""
    word = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if word.isalpha() and word.islower() else text


class Interrupted(Exception):
    """A wait or a transfer was told to stop before it was done."""


class LlamactlError(Exception):
    """Base of everything that is told to a person: a message, a hint, a stable code."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def details(self) -> str:
        """The message and the hint as sentences, one line unless a hint has several."""
        parts = [part.strip() for part in (self.message, self.hint) if part.strip()]
        return " ".join(part if part[-1] in ".!?:" else f"{part}." for part in parts)

    def __str__(self) -> str:
        return self.details


class ConfigError(LlamactlError):
    """The configuration cannot be used; the message names file, line and key."""

    code = "invalid_config"


class InvalidRequest(LlamactlError):
    """What was sent does not have the form that was asked for; ``field`` names the culprit."""

    code = "invalid_request"

    def __init__(self, message: str, *, hint: str = "", field: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class InvalidInstanceName(InvalidRequest):
    code = "invalid_instance_name"


class UnsupportedBackend(InvalidRequest):
    code = "unsupported_backend"


class UnsupportedFlag(InvalidRequest):
    """The llama.cpp that would run cannot honour this flag."""

    code = "unsupported_flag"


class NotFound(LlamactlError):
    code = "not_found"


class JobNotFound(NotFound):
    code = "job_not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class InstanceNotFound(NotFound):
    code = "instance_not_found"


class KeyNotFound(NotFound):
    code = "key_not_found"


class Conflict(LlamactlError):
    code = "conflict"


class InvalidState(Conflict):
    code = "invalid_state"


class ModelInUse(Conflict):
    code = "model_in_use"


class InstanceExists(Conflict):
    code = "instance_exists"


class InstanceRunning(Conflict):
    code = "instance_running"


class MaxInstancesReached(Conflict):
    code = "max_instances_reached"


class InsufficientMemory(Conflict):
    """By estimate there is not the memory for an instance beside those that run."""

    code = "insufficient_memory"


class NameCollision(Conflict):
    """Two repositories whose flat cache names would be one."""

    code = "name_collision"


class Unavailable(LlamactlError):
    """Not possible at the moment; ``retry_after`` is in seconds where a time is known."""

    code = "unavailable"

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class InstanceNotRunning(Unavailable):
    code = "instance_not_running"


class StartFailed(Unavailable):
    """An instance did not start; ``log_lines`` are the last ones that it wrote."""

    code = "start_failed"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        retry_after: float | None = None,
        log_lines: Sequence[str] = (),
    ) -> None:
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.log_lines = tuple(log_lines)


class StartTimeout(Unavailable):
    code = "start_timeout"


class ShuttingDown(Unavailable):
    code = "shutting_down"


class UpstreamGone(Unavailable):
    """The instance closed the connection before it answered."""

    code = "upstream_gone"


class TooManyRequests(LlamactlError):
    """A limit is reached; ``retry_after`` is in seconds."""

    code = "too_many_requests"

    def __init__(self, message: str, *, hint: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class QueueFull(TooManyRequests):
    code = "queue_full"


class AccessDenied(LlamactlError):
    code = "access_denied"


class MissingKey(AccessDenied):
    code = "missing_key"


class InvalidKey(AccessDenied):
    code = "invalid_key"


class PermissionDenied(AccessDenied):
    code = "permission_denied"


class TransferError(LlamactlError):
    """A download cannot go on. ``transient`` ones may pass by themselves."""

    code = "transfer_failed"
    transient: ClassVar[bool] = False


class RepoNotFound(TransferError):
    code = "not_found"


class EntryNotFound(TransferError):
    code = "not_found"


class GatedRepo(TransferError):
    code = "gated"


class Unauthorized(TransferError):
    code = "unauthorized"


class DisabledRepo(TransferError):
    code = "disabled"


class NoSuchTag(TransferError):
    code = "no_such_tag"


class IncompleteSet(TransferError):
    code = "incomplete_set"


class BadMetadata(TransferError):
    """The hub sent something that cannot be used safely."""

    code = "bad_metadata"


class ChecksumMismatch(TransferError):
    code = "checksum_mismatch"


class InsufficientSpace(TransferError):
    code = "insufficient_space"


class CacheNotWritable(TransferError):
    code = "cache_not_writable"


class HubOffline(TransferError):
    code = "offline"


class RateLimited(TransferError):
    """The hub asks to wait; ``retry_at`` is unix seconds."""

    code = "rate_limited"
    transient = True

    def __init__(self, message: str, *, hint: str = "", retry_at: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_at = retry_at


class NetworkError(TransferError):
    code = "network"
    transient = True
