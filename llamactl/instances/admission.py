"""Who may run: the limits, and whom to stop for a newcomer. Pure.

An instance takes its place from the moment it is starting until its process is gone. One that is
being stopped for another has already given its place to that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """An instance that takes a place. ``idle_since`` is None while it must not be evicted:
    it serves, it is waited for, or it is on its way up or down."""

    name: str
    group: str | None
    idle_since: float | None


@dataclass(frozen=True)
class Limits:
    """``running`` and each group's limit; negative is no limit."""

    running: int
    groups: Mapping[str, int]
    evict: bool


@dataclass(frozen=True)
class Decision:
    """``admitted`` says whether to start now; ``evict`` names whom to stop first.

    If it is not admitted, ``full`` is the group that is full, or None for the whole.
    """

    admitted: bool
    evict: str | None = None
    full: str | None = None


def decide(group: str | None, taken: Sequence[Place], limits: Limits) -> Decision:
    """Whether an instance of ``group`` may start beside those that have a place.

    The least recently used one goes, of the same group where the group is what is full.
    """
    group_limit = limits.groups.get(group, -1) if group is not None else -1
    peers = [place for place in taken if place.group == group]
    group_full = 0 <= group_limit <= len(peers)
    all_full = 0 <= limits.running <= len(taken)
    if not group_full and not all_full:
        return Decision(True)
    candidates = [
        (place.idle_since, place.name)
        for place in (peers if group_full else taken)
        if place.idle_since is not None
    ]
    if limits.evict and candidates:
        return Decision(True, evict=min(candidates)[1])
    return Decision(False, full=group if group_full else None)
