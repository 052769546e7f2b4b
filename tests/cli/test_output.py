"""How values look on a terminal."""

from __future__ import annotations

import pytest

from llamactl.cli.output import duration_text, plain, table, time_text


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
