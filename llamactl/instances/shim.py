"""The few lines that run between our process and the instance's: ``shim.py PARENT PROGRAM ARG…``.

Run as a file with ``-I -S`` it costs ten milliseconds, and each start waits for it: so nothing is
imported that is not needed (``pathlib`` and ``contextlib`` would cost three times as much).
On Linux the kernel is told to kill this process when the thread that made it ends, which covers
every way in which llamactl can die; the parent is looked at afterwards, because it may have died
in between. Where the kernel cannot, a guard does it. The instance gets no new privileges, writes no
core file of its gigabytes, and is what the kernel takes first when memory runs out.
"""

from __future__ import annotations

import os
import sys
import time

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, SIGKILL = 1, 38, 9
CANNOT_RUN = 127
GUARD_LOOKS_EVERY = 0.5


def main(argv: list[str]) -> int:
    """Become the program; returns only if that cannot be."""
    parent, command = int(argv[1]), argv[2:]
    if sys.platform == "linux":
        _bind_to_parent()
    if os.getppid() != parent:
        return CANNOT_RUN
    if sys.platform != "linux":
        _leave_guard(parent)
    _write_no_core()
    _offer_to_the_kernel()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        reason = f"{command[0]}: {error.strerror}"
        os.write(2, f"llamactl: cannot run {reason}\n".encode(errors="replace"))
    return CANNOT_RUN


def _bind_to_parent() -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _write_no_core() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass


def _offer_to_the_kernel() -> None:
    """When memory runs out."""
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(descriptor, b"500")
    except OSError:
        pass


def _leave_guard(parent: int) -> None:
    """Where the kernel does not do it: a small process that ends the group when the parent has."""
    instance = os.getpid()
    if os.fork() != 0:
        return
    # The pipe must end with the instance, not with its guard.
    for descriptor in (1, 2):
        os.dup2(0, descriptor)
    while os.getppid() == instance:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os.killpg(instance, SIGKILL)
        time.sleep(GUARD_LOOKS_EVERY)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
