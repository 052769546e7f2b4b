"""The sizes and times of a transfer that no user needs to set; tests make them small."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True)
class Tuning:
    """Sizes in bytes, times in seconds.

    ``piece_size``: the most that each connection may have to fetch again after a kill: what its
    request asks for, and its share of the bytes that are not recorded yet.
    ``request_size``: what one request asks for. Small enough that the hash can follow closely,
    large enough that requests cost nothing.
    ``longest_request``: on lines with a long way to the server a request may grow up to this; the
    hash follows no closer than that for each connection.
    ``read_size``: the most that is read and written at once.
    ``record_interval``: how long received bytes may wait for the disk and the sidecar.
    ``connect_timeout``: for the connection itself; silence after it is the stall's business.
    ``shown_as_stalled``: silence that is worth telling before the stall timeout cures it.
    ``first_pause``, ``longest_pause``: between failures in a row, doubling.
    ``widen_after``: a quiet time after which a lowered number of connections doubles again.
    ``steal_above``: a connection that needs longer for its rest shares it with an idle one.
    """

    piece_size: int = 16 * MIB
    request_size: int = 4 * MIB
    longest_request: int = 24 * MIB
    read_size: int = MIB
    record_interval: float = 1.0
    connect_timeout: float = 10.0
    shown_as_stalled: float = 5.0
    first_pause: float = 1.0
    longest_pause: float = 60.0
    widen_after: float = 30.0
    steal_above: float = 1.0


TUNING = Tuning()
