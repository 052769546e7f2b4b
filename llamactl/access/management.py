"""The management key that llamactl makes for itself at its first start."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from pathlib import Path
from typing import NamedTuple

from llamactl.config import Config
from llamactl.errors import ConfigError
from llamactl.parsing import MINIMUM_KEY_LENGTH
from llamactl.secret import Secret

log = logging.getLogger(__name__)

FILE_NAME = "management.key"
PREFIX = "llcm_"
_MAXIMUM_BYTES = 4096


class ManagementKey(NamedTuple):
    """``created`` is true for the one call that made the key, the moment to show it."""

    secret: Secret
    path: Path
    created: bool


def ensure_management_key(config: Config) -> ManagementKey | None:
    """The key in ``data_dir``/management.key, made with mode 0600 if there is none.

    None where keys are configured: they replace the file's, since whoever sets new ones means to
    shut the old one out. Two processes that start at once get the same key. Raises ``ConfigError``
    when the file cannot be made, or holds no usable key.
    """
    if config.auth.management_keys:
        return None
    path = config.data_dir / FILE_NAME
    try:
        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        created = False
        if not os.path.lexists(path):
            created = _make(path)
        return ManagementKey(_read(path), path, created)
    except OSError as error:
        raise ConfigError(
            f"{path}: the management key cannot be kept there: {error.strerror}",
            hint="Check the directory's owner and mode, or set auth.management_keys.",
        ) from error


def management_secrets(config: Config) -> tuple[Secret, ...]:
    """Every key that opens management: the configured ones, else the one in the file."""
    made = ensure_management_key(config)
    return config.auth.management_keys if made is None else (made.secret,)


def _make(path: Path) -> bool:
    """Put a whole new key at ``path``; false if someone else was first."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(draft, flags, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(PREFIX + secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link is refused where a name exists: no key that was shown is ever replaced.
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    return True


def _read(path: Path) -> Secret:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & 0o077:
            log.warning("%s was readable by others (mode %o); it is 0600 now", path, mode)
            os.fchmod(file.fileno(), 0o600)
        raw = file.read(_MAXIMUM_BYTES)
    value = raw.decode("ascii", "replace").strip()
    if len(value) < MINIMUM_KEY_LENGTH or not value.isprintable() or not value.isascii():
        raise ConfigError(
            f"{path} holds no usable management key",
            hint=f"Remove the file and a new key is made, or put a text of at least "
            f"{MINIMUM_KEY_LENGTH} characters there.",
        )
    return Secret(value)
