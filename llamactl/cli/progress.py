"""How a download looks while it runs: a bar, plain lines, or events for a program.

All three are fed with the Job of the REST interface, so that a download of this process and one
that a server does look alike.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TextIO

import click

from llamactl.cli.output import duration_text, plain, say
from llamactl.sizes import size_text

Job = Mapping[str, Any]

#: States of a job that goes on by itself; whoever follows it waits for another one.
UNDER_WAY = frozenset({"queued", "downloading"})
_MOVING = frozenset({"downloading", "verifying"})
_SHOWN_AT_ONCE = 4
_NARROWEST_BAR = 6
_NARROWEST_LABEL = 8
_WIDEST_BAR = 60


class Display(Protocol):
    """Is told of every state of the job and of the end."""

    def update(self, job: Job) -> None: ...

    def close(self) -> None: ...


class Events:
    """One JSON object a line on standard output for each change."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def update(self, job: Job) -> None:
        state = (job["status"], job["progress"]["bytes_downloaded"])
        if state == self._last:
            return
        moved = self._last is not None and self._last[0] == state[0]
        self._last = state
        event = "progress" if moved else job["status"]
        click.echo(json.dumps({"event": event, "job": job}, ensure_ascii=False))
        sys.stdout.flush()

    def close(self) -> None:
        pass


class Lines:
    """A line for each change of state, and one every few seconds in between."""

    EVERY_SECONDS = 5.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: tuple[object, ...] = ()
        self._at = 0.0

    def update(self, job: Job) -> None:
        state = (job["status"], job["detail"])
        due = job["status"] in UNDER_WAY and self._clock() - self._at >= self.EVERY_SECONDS
        if state == self._said and not due:
            return
        self._said, self._at = state, self._clock()
        say(summary(job))

    def close(self) -> None:
        pass


class Bar:
    """A line for each file that moves and one for the whole, redrawn in place."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._drawn = 0
        self._done: set[str] = set()
        encoding = (getattr(self._stream, "encoding", None) or "ascii").lower()
        self._fancy = encoding.replace("-", "").startswith("utf")
        self._colour = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def update(self, job: Job) -> None:
        width = shutil.get_terminal_size().columns
        settled = [file for file in job["progress"]["files"] if self._newly_done(file)]
        lines = [done_line(file, self._fancy) for file in settled]
        moving = bar_lines(job, width, fancy=self._fancy, colour=self._colour)
        self._draw(lines, moving)

    def close(self) -> None:
        self._draw([], [])

    def _newly_done(self, file: Job) -> bool:
        if file["status"] != "completed" or file["name"] in self._done:
            return False
        self._done.add(file["name"])
        return True

    def _draw(self, settled: list[str], moving: list[str]) -> None:
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"{line}\n" for line in [*settled, *moving])
        self._stream.write(f"{up}\r\x1b[J{body}")
        self._stream.flush()
        self._drawn = len(moving)


def done_line(file: Job, fancy: bool) -> str:
    """What stays on the screen of a file that is complete."""
    return f"{'✓' if fancy else 'ok'} {plain(file['name'])}  {size_text(file['size'])}"


class Row(NamedTuple):
    """One bar before it is laid out."""

    label: str
    done: int
    total: int | None
    tail: str = ""

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 0.0

    def figures(self, fewer: int = 0) -> str:
        """Share, size and pace; ``fewer`` leaves out the size first, then the pace."""
        if not self.total:
            return self.tail
        size = f"{size_text(self.done)} of {size_text(self.total)}"
        parts = [f"{int(self.share * 100):3d} %", f"{size:<18}", self.tail]
        shown = (parts, [parts[0], parts[2]], parts[:1])[fewer]
        return "  ".join(shown).rstrip()


def bar_lines(job: Job, width: int, *, fancy: bool = True, colour: bool = False) -> list[str]:
    """The lines of the moving part, none longer than ``width`` cells, their bars aligned."""
    progress = job["progress"]
    files = [file for file in progress["files"] if file["status"] in _MOVING]
    several = len(progress["files"]) > 1 and bool(files)
    rows = [
        Row(plain(file["name"]), file["bytes_downloaded"], file["size"])
        for file in files[:_SHOWN_AT_ONCE]
        if several
    ]
    model = f"{job['repo']}:{job['tag'] or ''}".rstrip(":")
    label = "all files" if several else plain(files[0]["name"] if files else model)
    rows.append(Row(label, progress["bytes_downloaded"], progress["total_bytes"], _pace(job)))
    return _laid_out(rows, width - 1, fancy, colour)


def summary(job: Job) -> str:
    """One plain line that says how far the job is."""
    progress = job["progress"]
    pace = _pace(job)
    parts = [pace if pace == "verifying" else job["status"]]
    if progress["total_bytes"]:
        percent = 100 * progress["bytes_downloaded"] // progress["total_bytes"]
        done, total = size_text(progress["bytes_downloaded"]), size_text(progress["total_bytes"])
        parts.append(f"{percent} % ({done} of {total})")
    if pace and pace not in parts:
        parts.append(pace)
    if progress["current_file"] and job["status"] in UNDER_WAY:
        parts.append(plain(progress["current_file"]))
    return "  ".join(parts)


def _pace(job: Job) -> str:
    """Speed and time left while bytes move, else what the job waits for."""
    if job["status"] == "queued":
        return "waits for its turn"
    if job["status"] != "downloading":
        return ""
    if job["detail"] == "verifying":
        return "verifying"
    if job["detail"]:
        wait = max(0.0, job["retry_at"] - time.time()) if job["retry_at"] else 0.0
        reason = str(job["detail"]).replace("_", " ")
        return f"{reason}, next try in {duration_text(wait)}" if wait else reason
    progress = job["progress"]
    speed, eta = progress["bytes_per_second"], progress["eta_seconds"]
    parts = [f"{size_text(int(speed))}/s"] if speed else []
    if eta is not None and speed:
        parts.append(f"{duration_text(eta)} left")
    return ", ".join(parts)


def _laid_out(rows: list[Row], width: int, fancy: bool, colour: bool) -> list[str]:
    figures: list[str] = []
    room = 0
    for fewer in range(3):
        figures = [row.figures(fewer) for row in rows]
        room = width - max(map(len, figures)) - 4
        if room >= _NARROWEST_LABEL:
            break
    label_width = min(max(len(row.label) for row in rows), max(_NARROWEST_LABEL, room * 2 // 3))
    cells = min(_WIDEST_BAR, room - label_width)
    lines = []
    for row, figure in zip(rows, figures, strict=True):
        label = _shorten(row.label, label_width).ljust(label_width)
        if cells < _NARROWEST_BAR:
            lines.append(f"{label}  {figure}"[:width])
        else:
            bar = _bar(row.share, cells, fancy, colour)
            lines.append(f"{label}  {bar}  {figure}")
    return lines


def _bar(share: float, cells: int, fancy: bool, colour: bool) -> str:
    full, half, rest = ("━", "╸", "━" if colour else "─") if fancy else ("#", "", "-")
    exact = share * cells
    whole = int(exact)
    tip = half if half and exact - whole >= 0.5 else ""
    left = rest * (cells - whole - len(tip))
    if not colour:
        return full * whole + tip + left
    return f"\x1b[32m{full * whole}{tip}\x1b[90m{left}\x1b[0m"


def _shorten(name: str, room: int) -> str:
    """The end of a file's name says more than its beginning."""
    return name if len(name) <= room else f"…{name[1 - room :]}"
