"""Ports for instances that tests start, so that tests which run at once do not meet."""

from __future__ import annotations

import os

#: More than all the ranges that are named below lie apart.
_STEP = 3000


def instance_ports(first: int, last: int) -> str:
    """A value of ``instances.port_range``, another one in each of the tests' parallel workers.

    ``first`` lies between 20000 and 22999; with three workers none is above 28999, below the ports
    that the system gives to clients.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    return f"{first + worker * _STEP}-{last + worker * _STEP}"
