"""Addresses in a request that llama.cpp would fetch by itself.

Pure. llama.cpp reads images and audio from ``http:``, ``https:`` and ``file:`` addresses in a
message: whoever may send a prompt could make it open pages of the local network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: Parts of a request that are data for the model or its template, and are never fetched.
_NOT_FETCHED = frozenset(
    {"tools", "functions", "response_format", "json_schema", "metadata", "chat_template_kwargs"}
)
_ADDRESS_KEYS = re.compile(r"(image|video|audio|file|media)_url|input_(image|audio|video)|source")
_REMOTE = re.compile(r"\s*(?!data:)[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def remote_addresses(body: Mapping[str, Any]) -> Iterator[str]:
    """Every address in a parsed body that is not carried along with it (``data:``)."""
    # A list of what is still to be looked at, since a body may be nested deeper than calls can be.
    waiting: list[Any] = []
    for key, value in body.items():
        if key not in _NOT_FETCHED:
            yield from _addresses_at(key, value)
            waiting.append(value)
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            # What a tool was called with is shown to the model and not fetched.
            skipped = "input" if value.get("type") == "tool_use" else None
            for key, item in value.items():
                if key != skipped:
                    yield from _addresses_at(key, item)
                    waiting.append(item)


def _addresses_at(key: str, value: Any) -> Iterator[str]:
    if _ADDRESS_KEYS.fullmatch(key):
        yield from _remote_in(value)


def _remote_in(value: Any) -> Iterator[str]:
    candidates = (value.get("url"), value.get("data")) if isinstance(value, dict) else (value,)
    for candidate in candidates:
        if isinstance(candidate, str) and _REMOTE.match(candidate):
            yield candidate
