"""One file on its way: where its bytes come from and go to, and who fetches which of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from llamactl.downloads.byte_ranges import ByteRanges
from llamactl.downloads.partfile import PartFile
from llamactl.downloads.source import Source
from llamactl.models.hubfile import HubFile

_WORTH_A_REQUEST = 16 * 1024


@dataclass(eq=False)
class Claim:
    """Bytes ``[position, end)`` of one file that one worker fetches and nobody else.

    ``end`` may move down to give the rest to another worker, never below ``reading_up_to``, where
    the read that is under way ends. ``whole``: the file is asked for without a range, and what is
    there already is skipped.
    """

    target: Target
    start: int
    end: int
    whole: bool = False
    position: int = field(init=False)
    reading_up_to: int = field(init=False)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.position = self.reading_up_to = self.start

    def seconds_left(self, settled_after: float) -> float:
        """How long the rest takes at the pace so far; 0 while it is too early to tell."""
        elapsed = time.monotonic() - self.began
        if elapsed < settled_after:
            return 0.0
        return elapsed * (self.end - self.position) / max(1, self.position - self.start)


@dataclass(eq=False)
class Target:
    """The schedule alone changes what is below ``source``.

    ``single``: one connection at a time, since several were refused or brought wrong bytes.
    ``whole``: the server does not do ranges; the file comes as one stream.
    ``rejected``: how often all bytes were there and had the wrong digest.
    """

    file: HubFile
    part: PartFile
    source: Source
    unclaimed: ByteRanges = field(init=False)
    claims: set[Claim] = field(default_factory=set)
    single: bool = False
    whole: bool = False
    ranges_ignored: int = 0
    rejected: int = 0
    verified: bool = False

    def __post_init__(self) -> None:
        self.unclaimed = self.part.missing()

    @property
    def settled(self) -> bool:
        """Whether no byte has to be fetched any more, as it stands."""
        return not self.unclaimed and not self.claims

    def claim(self, most: int) -> Claim | None:
        """The next bytes to fetch, or None when there are none to give out now."""
        if not self.unclaimed or ((self.single or self.whole) and self.claims):
            return None
        if self.whole:
            self.unclaimed = ByteRanges()
            claim = Claim(self, 0, self.file.size, whole=True)
        else:
            taken = self.unclaimed.take_first(self.file.size if self.single else most)
            if taken is None:
                return None
            claim = Claim(self, *taken)
        self.claims.add(claim)
        return claim

    def give_back(self, claim: Claim) -> None:
        """What the claim did not fetch can be claimed again."""
        self.claims.discard(claim)
        if claim.whole:
            self.unclaimed = self.part.missing()
        else:
            self.unclaimed.add(claim.position, claim.end)

    def split(self, slow: Claim) -> Claim | None:
        """The second half of a claim's rest, where that is worth a request of its own."""
        middle = slow.position + (slow.end - slow.position) // 2
        middle = max(middle, slow.reading_up_to)
        if self.single or self.whole or slow.end - middle < _WORTH_A_REQUEST:
            return None
        rest = Claim(self, middle, slow.end)
        slow.end = middle
        self.claims.add(rest)
        return rest

    def start_over(self) -> None:
        """Every byte is to be fetched again, one connection at a time."""
        self.part.reset()
        self.rejected += 1
        self.single = True
        self.unclaimed = self.part.missing()
