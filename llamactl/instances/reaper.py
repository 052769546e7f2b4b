"""What a former life of the server left running, found and ended before anything is started.

The kernel ends our children with us, but not what they started, nor a program that became another
user's. Found are processes whose environment has the mark of this data directory, and those that
were recorded before they were made: by number, time of start and boot, all three. Whoever holds the
data directory's lock may do this, since no living server owns any of them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path

from llamactl.instances import processes
from llamactl.instances.store import InstanceStore, Run

logger = logging.getLogger(__name__)

_PATIENCE = 5.0


def mark_prefix(data_dir: Path) -> str:
    """What the marks of this data directory's processes begin with."""
    path = os.fsencode(os.path.realpath(data_dir))
    return hashlib.sha256(path).hexdigest()[:16] + ":"


def reap_leftovers(store: InstanceStore, prefix: str) -> list[int]:
    """End them all; the numbers of the processes that were there."""
    killed = set(processes.kill_marked(prefix))
    runs = store.runs()
    killed |= {run.pid for run in runs if run.pid is not None and _kill(run, run.pid)}
    deadline = time.monotonic() + _PATIENCE
    while any(processes.with_mark(prefix)) and time.monotonic() < deadline:
        killed |= set(processes.kill_marked(prefix))
        time.sleep(0.01)
    for run in runs:
        store.end(run.run_id)
    if killed:
        logger.warning("ended processes that a former server left: %s", sorted(killed))
    return sorted(killed)


def _kill(run: Run, pid: int) -> bool:
    def is_that(_pid: int) -> bool:
        return processes.start_ticks(pid) == run.start_ticks

    known = run.start_ticks is not None and run.boot_id == processes.boot_id() != ""
    return known and is_that(pid) and processes.kill(pid, is_that)
