"""Ports for what tests start, so that tests which run at once do not meet.

All lie below the ports that the system gives to clients: a port of those could be taken by any
connection between the moment in which it was found free and the one in which it is used.
"""

from __future__ import annotations

import itertools
import os
import socket

#: More than all the ranges that are named below lie apart.
_STEP = 3000
#: A hundred for each process, one after the other, so that none comes again soon.
_FREE = itertools.cycle(range(10_000 + os.getpid() % 100 * 100, 10_100 + os.getpid() % 100 * 100))


def instance_ports(first: int, last: int) -> str:
    """A value of ``instances.port_range``, another one in each of the tests' parallel workers.

    ``first`` lies between 20000 and 22999; with three workers none is above 28999, below the ports
    that the system gives to clients.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    return f"{first + worker * _STEP}-{last + worker * _STEP}"


def free_port() -> int:
    """A port where nothing listens."""
    for port in itertools.islice(_FREE, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")
