"""Byte ranges against the plainest model of them: a set of numbers."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from llamactl.downloads.byte_ranges import ByteRanges, parse_ranges

SIZE = 60


@pytest.mark.parametrize("seed", range(30))
def test_ranges_agree_with_a_set_of_positions(seed: int) -> None:
    chance = random.Random(seed)
    ranges, model = ByteRanges(), set[int]()
    for _ in range(40):
        start = chance.randrange(SIZE)
        end = min(SIZE, start + chance.randrange(12))
        ranges.add(start, end)
        model |= set(range(start, end))
        assert {p for a, b in ranges for p in range(a, b)} == model
        assert ranges.total == len(model)
        pairs = list(ranges)
        gaps_between = itertools.pairwise(pairs)
        assert all(end < following for (_, end), (following, _) in gaps_between)
        missing = {p for a, b in ranges.gaps(SIZE) for p in range(a, b)}
        assert missing == set(range(SIZE)) - model
        probe = chance.randrange(SIZE)
        expected = probe
        while expected in model:
            expected += 1
        assert ranges.end_of_run(probe) == expected


def test_take_first_removes_what_it_gives() -> None:
    ranges = ByteRanges([(5, 10), (20, 23)])
    assert ranges.take_first(3) == (5, 8)
    assert ranges.take_first(30) == (8, 10)
    assert ranges.take_first(30) == (20, 23)
    assert ranges.take_first(30) is None
    assert ranges.total == 0 and not ranges


def test_a_copy_is_independent() -> None:
    ranges = ByteRanges([(0, 5)])
    copy = ranges.copy()
    ranges.add(7, 9)
    assert list(copy) == [(0, 5)]
    assert copy != ranges


@pytest.mark.parametrize(
    "text",
    [
        "null", "{}", "[[0]]", "[[0,1,2]]", "[[1,0]]", "[[0,0]]", "[[-1,4]]", "[[0,101]]",
        "[[5,9],[0,2]]", "[[0,5],[5,9]]", "[[0,5],[3,9]]", "[[0.0,5]]", "[[false,true]]",
        '[["0",5]]', "[0,5]",
    ],
)  # fmt: skip
def test_ranges_that_cannot_be_are_not_parsed(text: str) -> None:
    assert parse_ranges(json.loads(text), 100) is None


def test_parsing_gives_back_what_was_written() -> None:
    assert parse_ranges([[0, 5], [7, 100]], 100) == ByteRanges([(0, 5), (7, 100)])
    assert parse_ranges([], 100) == ByteRanges()
