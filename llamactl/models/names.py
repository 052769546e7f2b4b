"""What may become part of a path: every name that a hub sends passes here before it is used.

A name that is not safe is refused, never repaired: two names that were repaired into one would
overwrite each other.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from llamactl.errors import BadMetadata

#: Letters, digits and underscores, with single dots and hyphens between them. That is llama.cpp's
#: rule, and stricter than the Hub's: what it refuses could be downloaded, but not run with -hf.
_NAME = r"[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*"
_REPO_ID = re.compile(rf"{_NAME}/{_NAME}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OID = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")

_LONGEST_NAME = 96
_LONGEST_PART = 200
_LONGEST_FILENAME = 512
_DEEPEST = 8


def is_repo_id(text: str) -> bool:
    """Whether ``text`` is ``org/name`` as both the Hub and llama.cpp accept it."""
    return (
        _REPO_ID.fullmatch(text) is not None
        and all(len(part) <= _LONGEST_NAME for part in text.split("/"))
        and not text.endswith(".git")
    )


def is_commit(text: str) -> bool:
    return _COMMIT.fullmatch(text) is not None


def is_oid(text: str) -> bool:
    return _OID.fullmatch(text) is not None


@lru_cache(maxsize=16_384)
def is_filename(text: str) -> bool:
    """Whether ``text`` is a relative path that is safe, and the same file, on every system."""
    parts = text.split("/")
    return (
        len(text.encode("utf-8", "surrogatepass")) <= _LONGEST_FILENAME
        and len(parts) <= _DEEPEST
        and all(_is_path_part(part) for part in parts)
    )


def _is_path_part(part: str) -> bool:
    return (
        part not in {"", ".", ".."}
        and part[-1] not in ". "
        and "\\" not in part
        and ":" not in part
        # No control characters, no lone surrogates, none of the marks that turn text around.
        and len(part.encode("utf-8", "surrogatepass")) <= _LONGEST_PART
        and ((part.isascii() and part.isprintable()) or _is_plain_unicode(part))
    )


def _is_plain_unicode(part: str) -> bool:
    hidden = {"Cc", "Cf", "Cs"}
    return unicodedata.is_normalized("NFC", part) and not any(
        unicodedata.category(character) in hidden for character in part
    )


def check_repo_id(value: object) -> str:
    """``value`` when it is ``org/name``. Raises ``BadMetadata``."""
    if isinstance(value, str) and is_repo_id(value):
        return value
    raise BadMetadata(f"{_shown(value)} is not the name of a repository")


def check_commit(value: object) -> str:
    """``value`` when it is 40 lower-case hexadecimal digits. Raises ``BadMetadata``."""
    if isinstance(value, str) and is_commit(value):
        return value
    raise BadMetadata(f"{_shown(value)} is not a commit")


def check_oid(value: object) -> str:
    """``value`` when it is a sha256 (64 digits) or a git sha1 (40 digits).

    Raises ``BadMetadata``.
    """
    if isinstance(value, str) and is_oid(value):
        return value
    raise BadMetadata(f"{_shown(value)} is not the digest of a file")


def check_filename(value: object) -> str:
    """``value`` when it is a safe path inside a repository. Raises ``BadMetadata``."""
    if isinstance(value, str) and is_filename(value):
        return value
    raise BadMetadata(f"{_shown(value)} is not a file name that can be stored safely")


def _shown(value: object) -> str:
    """At most 80 characters, escaped: the value came from outside."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
