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
    for key, value in body.items():
        if key not in _NOT_FETCHED:
            yield from _below(key, value)


def _within(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _within(item)
    elif isinstance(value, dict):
        # What a tool was called with is shown to the model and not fetched.
        skipped = "input" if value.get("type") == "tool_use" else None
        for key, item in value.items():
            if key != skipped:
                yield from _below(key, item)


def _below(key: str, value: Any) -> Iterator[str]:
    if _ADDRESS_KEYS.fullmatch(key):
        yield from _remote_in(value)
    yield from _within(value)


def _remote_in(value: Any) -> Iterator[str]:
    candidates = (value.get("url"), value.get("data")) if isinstance(value, dict) else (value,)
    for candidate in candidates:
        if isinstance(candidate, str) and _REMOTE.match(candidate):
            yield candidate
