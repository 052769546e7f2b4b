"""How many connections fetch at a time, step by step."""

from __future__ import annotations

from collections.abc import Callable

from llamactl.downloads.width import Width


class Line:
    """A transfer as the width sees it: what its connections bring, and what that costs."""

    def __init__(
        self, connections: int, rate: Callable[[int], float], share: Callable[[int], float]
    ) -> None:
        self.time = 100.0
        self.width = Width(connections, self.time, quiet=30.0, burst=1.0)
        self._rate, self._share = rate, share
        self._fetched = self._busy = 0.0
        self.seen: list[int] = []

    def run(self, seconds: float) -> int:
        """Let time pass; the number of connections after it."""
        for _ in range(round(seconds * 10)):
            self.time += 0.1
            self._fetched += self._rate(self.width.now) * 0.1
            self._busy += self._share(self.width.now) * 0.1
            self.width.look(self.time, int(self._fetched), self._busy)
            self.seen.append(self.width.now)
        return self.width.now


def test_a_line_that_is_slow_on_each_connection_gets_all_of_them_soon() -> None:
    line = Line(8, rate=lambda n: 20e6 * n, share=lambda n: 0.02 * n)
    assert line.width.now == 1
    assert line.run(0.4) == 8
    assert line.run(60) == 8


def test_a_long_way_to_the_first_byte_is_no_reason_to_wait() -> None:
    line = Line(8, rate=lambda n: 0, share=lambda n: 0)
    assert line.run(0.3) == 8


def test_where_one_keeps_the_machine_busy_it_stays_with_one() -> None:
    line = Line(8, rate=lambda n: 1e9, share=lambda n: 0.8)
    assert line.run(30) == 1
    assert 2 in line.seen, "twice as many were tried"
    assert line.seen.count(2) < len(line.seen) / 10


def test_fast_connections_that_add_up_are_all_taken() -> None:
    line = Line(8, rate=lambda n: 600e6 * n, share=lambda n: 0.5 * n)
    assert line.run(3) == 8


def test_a_line_that_is_full_with_four_stays_with_four() -> None:
    line = Line(16, rate=lambda n: min(n, 4) * 600e6, share=lambda n: 0.5 * min(n, 4))
    assert line.run(8) == 4


def test_a_single_connection_is_a_single_connection() -> None:
    line = Line(1, rate=lambda n: 1e9, share=lambda n: 0.9)
    assert line.run(5) == 1


def test_an_overload_halves_down_to_one_and_is_forgiven_in_time() -> None:
    line = Line(8, rate=lambda n: 20e6 * n, share=lambda n: 0.02)
    line.run(1)
    for expected in (4, 2, 1, 1):
        line.width.overloaded(line.time)
        line.width.overloaded(line.time + 0.5)
        assert line.width.now == expected, "a burst of refusals counts once"
        line.run(2)
    assert line.run(30) == 2
    assert line.run(65) == 8
