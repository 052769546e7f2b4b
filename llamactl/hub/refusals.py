"""What the hub's refusals mean, and what a person can do about each (no network here)."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from llamactl.errors import (
    BadMetadata,
    DisabledRepo,
    EntryNotFound,
    GatedRepo,
    RepoNotFound,
    TransferError,
    Unauthorized,
)

_BAD_TOKEN = "Invalid credentials in Authorization header"
_DISABLED = "Access to this resource is disabled."
_LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class Asked:
    """What was asked of the hub, as far as an error's sentence needs it."""

    endpoint: str
    repo_id: str = ""
    filename: str = ""
    with_token: bool = False

    @property
    def page(self) -> str:
        """The repository's page, where licences are accepted."""
        return f"{self.endpoint}/{self.repo_id}"


def refusal(asked: Asked, status: int, headers: Mapping[str, str], body: bytes) -> TransferError:
    """The error that an answer of 400 or more stands for.

    ``headers`` must not distinguish case. The order matters: the hub says 401 for what does not
    exist, and gives no code for a disabled repository or a wrong token.
    """
    code = headers.get("X-Error-Code", "")
    message = said(headers, body)
    if code == "RepoNotFound":
        return _no_repo(asked)
    if code == "RevisionNotFound":
        return EntryNotFound(
            f"{asked.repo_id} has no such revision any more: {message}",
            hint="Start the download again, so that it begins from the present one",
        )
    if code == "EntryNotFound":
        return EntryNotFound(f"{asked.repo_id} has no file {asked.filename!r} at this commit")
    if code == "GatedRepo":
        return _gated(asked, status)
    if message == _DISABLED:
        return DisabledRepo(f"The hub has disabled access to {asked.repo_id}")
    if status == 401 and (message == _BAD_TOKEN or asked.with_token):
        return Unauthorized(
            "The hub does not accept the token",
            hint="Make a new one on the hub's page of access tokens, set HF_TOKEN to it (or run "
            "`hf auth login`), and restart llamactl",
        )
    if status in (401, 404):
        return _no_repo(asked)
    if status == 403:
        return Unauthorized(
            f"The hub refuses access to {asked.repo_id}: {message}",
            hint="Check that the token's permissions cover this repository",
        )
    return BadMetadata(f"The hub answered {status}: {message}")


def said(headers: Mapping[str, str], body: bytes) -> str:
    """What the hub says about its refusal, in one line without control characters."""
    text = headers.get("X-Error-Message", "")
    if not text and "html" not in headers.get("Content-Type", ""):
        text = _error_of(body)
    kept = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text)
    kept = " ".join(kept.split())
    return kept[:_LONGEST_MESSAGE] or "no reason given"


def _error_of(body: bytes) -> str:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return body[: 2 * _LONGEST_MESSAGE].decode("utf-8", "replace")
    error = content.get("error") if isinstance(content, dict) else None
    return error if isinstance(error, str) else ""


def _no_repo(asked: Asked) -> TransferError:
    if asked.with_token:
        return RepoNotFound(
            f"{asked.repo_id} does not exist, or the token may not see it",
            hint="Check the spelling, and that the token's account has access",
        )
    return RepoNotFound(
        f"{asked.repo_id} does not exist, or it is private",
        hint="Check the spelling; for a private repository set HF_TOKEN, or run `hf auth login`",
    )


def _gated(asked: Asked, status: int) -> TransferError:
    if asked.with_token and status == 403:
        return GatedRepo(
            f"The token's account has not been granted access to {asked.repo_id}",
            hint=f"Accept its licence at {asked.page}, wait for approval if one is needed, "
            "then retry",
        )
    return GatedRepo(
        f"{asked.repo_id} is gated: its authors want to know who downloads it",
        hint=f"Accept its licence at {asked.page}, set HF_TOKEN to a token of that account "
        "(or run `hf auth login`), then retry",
    )
