"""The token that the hub is shown: from the environment, or from a login with `hf`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from llamactl.config import HubConfig
from llamactl.parsing import is_switched_on
from llamactl.secret import Secret


def current_token(config: HubConfig, environ: Mapping[str, str] | None = None) -> Secret | None:
    """``HF_TOKEN``, else the token of `hf auth login`, read anew each time; None without either.

    ``HF_HUB_DISABLE_IMPLICIT_TOKEN`` keeps the login's token back; ``HF_TOKEN``, being set for
    this very server, is sent all the same. May ask the network to renew a login that expires.
    """
    if config.token is not None:
        return config.token
    environ = os.environ if environ is None else environ
    if is_switched_on(environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "")):
        return None
    path = token_path(environ)
    token = _read(path)
    if token and _can_expire(path):
        token = _renewed(path) or token
    return Secret(token) if token else None


def token_path(environ: Mapping[str, str]) -> Path:
    """Where `hf auth login` keeps the token."""
    if named := environ.get("HF_TOKEN_PATH"):
        return Path(named).expanduser()
    if home := environ.get("HF_HOME"):
        return Path(home).expanduser() / "token"
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface" / "token"


def _read(path: Path) -> str:
    """The file's text without surrounding space; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _can_expire(path: Path) -> bool:
    """Whether `hf` keeps something to renew a token with, as it does for logins by browser."""
    return "refresh_token" in _read(path.with_name("stored_tokens"))


def _renewed(path: Path) -> str | None:
    """The login's token after `huggingface_hub`, which keeps it, has renewed it where needed."""
    from huggingface_hub import constants, get_token

    # It read its own environment when it was imported, and must not answer for another login.
    return get_token() if Path(constants.HF_TOKEN_PATH) == path else None
