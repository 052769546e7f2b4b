"""Flags of llama-server as lines that a person types: ``--flag value``, one a line."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llamactl.instances.flags import dashes


def flags_of(text: str) -> dict[str, Any]:
    """Flag to value; one that is given again becomes a list, one without a value is true."""
    flags: dict[str, Any] = {}
    for line in text.splitlines():
        flag, value = _flag(line)
        if not flag:
            continue
        if flag not in flags:
            flags[flag] = value
        elif isinstance(flags[flag], list):
            flags[flag].append(value)
        else:
            flags[flag] = [flags[flag], value]
    return flags


def flag_lines(flags: Mapping[str, Any]) -> Sequence[str]:
    """The lines that ``flags_of`` reads back; names have underscores, or dashes in front."""
    lines = []
    for flag, value in flags.items():
        spelled = dashes(flag)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, bool):
                lines.append(spelled if each else f"--no-{spelled.lstrip('-')}")
            else:
                lines.append(f"{spelled} {_quoted(value_text(each))}")
    return lines


def value_text(value: object) -> str:
    """A value as a person would type it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flag(line: str) -> tuple[str, str | bool]:
    match = re.fullmatch(r"(-*[^\s=]+)(?:[\s=]+(.*))?", line.strip())
    if match is None:
        return "", True
    return match[1], _unquoted((match[2] or "").strip()) or True


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        with contextlib.suppress(ValueError):
            read = str(json.loads(value))
            # Half of a surrogate pair can be spelled in JSON, and is no text.
            read.encode()
            return read
    return value


def _quoted(value: str) -> str:
    # A template with line breaks is one value all the same.
    one_line = value == value.strip() and value.isprintable() and not value.startswith('"')
    return value if one_line and value else json.dumps(value)
