"""How many files this process may have open; each connection is one."""

from __future__ import annotations

import contextlib
import resource


def allow_open_files(wanted: int) -> None:
    """Let this process open ``wanted`` files, or as many as the system lets it.

    A terminal mostly gives 1024, for the sake of programs that use ``select``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # macOS has a bound of its own below the one that it tells.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
