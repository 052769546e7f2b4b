"""How values look on a terminal: times, tables, messages."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click


def say(message: str) -> None:
    """A message for the person, on standard error; results go through ``click.echo``."""
    click.echo(message, err=True)


def print_json(value: Any) -> None:
    """A result for a program: indented for a terminal, one line for a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    click.echo(json.dumps(value, ensure_ascii=False, indent=indent))


def duration_text(seconds: float) -> str:
    """``0:09``, ``12:40``, ``3:07:00``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def time_text(timestamp: float | None) -> str:
    """A moment in the local time zone; ``never`` where there is none."""
    if timestamp is None:
        return "never"
    return datetime.fromtimestamp(timestamp).astimezone().strftime("%Y-%m-%d %H:%M")


def plain(text: object) -> str:
    """Text that came from elsewhere, without the control characters that steer a terminal."""
    return "".join(char if char.isprintable() else "�" for char in str(text))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Left-aligned columns, as wide as their widest cell; the last one is left ragged."""
    lines = [list(heads), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
