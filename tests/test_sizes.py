"""How many bytes something has, as people read it."""

from __future__ import annotations

import pytest

from llamactl.sizes import size_text


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
        (147_000_000_000, "147 GB"),
        (10**15, "1.0 PB"),
        (10**19, "10000 PB"),
    ],
)
def test_sizes_have_decimal_units_and_two_or_three_digits(size: int, text: str) -> None:
    assert size_text(size) == text
