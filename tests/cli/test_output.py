"""How values look on a terminal."""

from __future__ import annotations

import pytest

from llamactl.cli.output import duration_text, plain, size_text, table, time_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (2_147_483_648, "2.1 GB"),
        (10**16, "10.0 PB"),
        (10**19, "10000 PB"),
    ],
)
def test_sizes_have_decimal_units_and_three_digits(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (9.4, "0:09"), (760, "12:40"), (11220, "3:07:00")]
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_missing_moment_is_never() -> None:
    assert time_text(None) == "never"
    assert time_text(0).startswith(("1970", "1969"))


def test_a_table_cannot_be_made_to_steer_the_terminal() -> None:
    text = table(("NAME", "SIZE"), [("a\x1b[2Jb\nc", 1), ("long name", 2)])
    assert "\x1b" not in text
    assert len(text.splitlines()) == 3
    assert plain("Grüße 日本") == "Grüße 日本"
