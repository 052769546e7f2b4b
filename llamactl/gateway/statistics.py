"""What the gateway did since the start, for whoever measures it."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from llamactl.gateway.usage import Usage

#: Upper bounds of the histograms' buckets, in seconds.
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass
class Histogram:
    """Counts by bucket; the last one is for what is beyond every bound."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def copy(self) -> Histogram:
        """The same counts, which no later request changes."""
        return Histogram(list(self.counts), self.total)


@dataclass
class InstanceStatistics:
    """``results`` counts requests by HTTP status, or by the code of what went wrong.

    ``first_token`` is of streams only: their first byte is written with their first token.
    """

    results: Counter[str] = field(default_factory=Counter)
    duration: Histogram = field(default_factory=Histogram)
    first_byte: Histogram = field(default_factory=Histogram)
    first_token: Histogram = field(default_factory=Histogram)
    prompt_tokens: int = 0
    generated_tokens: int = 0


class Statistics:
    """Counters by instance, the empty name for requests that reached none. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._instances: dict[str, InstanceStatistics] = defaultdict(InstanceStatistics)

    def record(
        self,
        instance: str,
        result: str,
        duration: float,
        first_byte: float | None,
        usage: Usage,
        *,
        streamed: bool = False,
    ) -> None:
        """Count one request that has ended; times in seconds since it came."""
        with self._lock:
            entry = self._instances[instance]
            entry.results[result] += 1
            entry.duration.observe(duration)
            if first_byte is not None:
                entry.first_byte.observe(first_byte)
                if streamed:
                    entry.first_token.observe(first_byte)
            entry.prompt_tokens += usage.prompt
            entry.generated_tokens += usage.generated

    def snapshot(self) -> Mapping[str, InstanceStatistics]:
        """A copy of every counter."""
        with self._lock:
            return {
                name: InstanceStatistics(
                    Counter(entry.results),
                    entry.duration.copy(),
                    entry.first_byte.copy(),
                    entry.first_token.copy(),
                    entry.prompt_tokens,
                    entry.generated_tokens,
                )
                for name, entry in self._instances.items()
            }
