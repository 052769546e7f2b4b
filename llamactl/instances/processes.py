"""Looking at and ending processes by what the kernel says of them, on Linux through ``/proc``.

Everything here is careful about one thing: a number of a process can be given to another one, so
whoever is signalled is identified a second time after a handle on it is held.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PROC = Path("/proc")
MARK = "LLAMACTL_RUN"
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def boot_id() -> str:
    """A word that is another one after each boot of the machine; empty where there is none."""
    with contextlib.suppress(OSError):
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    return ""


def start_ticks(pid: int) -> int | None:
    """When the process began, in clock ticks since the boot; None if there is no such process."""
    fields = _stat(pid)
    return None if not fields or fields[0] in (b"Z", b"X") else int(fields[19])


def with_mark(prefix: str) -> Iterator[int]:
    """The processes of this user whose environment has ``LLAMACTL_RUN`` beginning with ``prefix``.

    The process that asks and those that it descends from are not among them: somebody may have
    started it from within an instance.
    """
    ourselves = {os.getpid(), *_ancestors(os.getpid())}
    for pid in _numbered(PROC):
        if pid not in ourselves and has_mark(pid, prefix):
            yield pid


def has_mark(pid: int, prefix: str) -> bool:
    """Whether the process was started with our mark. Another user's cannot be read: it was not."""
    wanted = f"{MARK}={prefix}".encode()
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return any(variable.startswith(wanted) for variable in environment.split(b"\0"))


def kill(pid: int, still_ours: Callable[[int], bool]) -> bool:
    """SIGKILL to one process if, with a handle on it held, ``still_ours(pid)`` is true."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not still_ours(pid):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def kill_marked(prefix: str) -> list[int]:
    """SIGKILL to every process with the mark, wherever it has gone; the numbers of those."""
    return [pid for pid in with_mark(prefix) if kill(pid, lambda each: has_mark(each, prefix))]


def resident_bytes(roots: Sequence[int]) -> dict[int, int]:
    """The resident memory of each of these processes with all its descendants, in bytes.

    Those of which nothing is known are left out.
    """
    if not roots:
        return {}
    parents, sizes = {}, {}
    for pid in _numbered(PROC):
        if fields := _stat(pid):
            parents[pid], sizes[pid] = int(fields[1]), int(fields[21]) * _PAGE
    total = {root: sizes[root] for root in roots if root in sizes}
    for pid, size in sizes.items():
        above = parents[pid]
        while above in parents and above not in total:
            above = parents[above]
        if above in total and pid not in total:
            total[above] += size
    return total


def mapped_bytes(pid: int) -> int:
    """The pages of files that a process has mapped and resident; 0 where that is not known."""
    try:
        lines = (PROC / str(pid) / "status").read_bytes().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"RssFile:")), 0)


def _stat(pid: int) -> list[bytes]:
    """The fields of ``/proc/PID/stat`` from the third on; none where there is no such process."""
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return []
    return stat[stat.rindex(b")") + 2 :].split()  # the name before it may hold anything


def _ancestors(pid: int) -> Iterator[int]:
    while (fields := _stat(pid)) and (pid := int(fields[1])) > 0:
        yield pid


def _numbered(directory: Path) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for entry in directory.iterdir():
            if entry.name.isdecimal():
                yield int(entry.name)
