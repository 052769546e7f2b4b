"""How far a job is, and how fast."""

from __future__ import annotations

from llamactl.downloads.progress import FileProgress, Pace, Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_pace_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.bytes_per_second() == 0
    for second in range(20):
        clock.now = float(second)
        pace.note(second * 100 if second < 10 else 1000 + (second - 10) * 50)
    assert pace.bytes_per_second() == 50


def test_a_pace_falls_to_nothing_when_nothing_comes() -> None:
    clock = Clock()
    pace = Pace(clock)
    for second in range(20):
        clock.now = float(second)
        pace.note(min(second, 5) * 100)
    assert pace.bytes_per_second() == 0


def test_progress_sums_its_files() -> None:
    progress = Progress(
        (
            FileProgress("a", 100, 100, "completed"),
            FileProgress("b", 300, 60, "downloading"),
            FileProgress("c", 100, 0, "pending"),
        ),
        total_bytes=500,
        bytes_per_second=34.0,
    )
    assert progress.bytes_downloaded == 160
    assert progress.current_file == "b"
    assert progress.eta_seconds == 10


def test_without_a_plan_or_a_pace_nothing_is_promised() -> None:
    assert Progress().total_bytes is None
    assert Progress(total_bytes=5).eta_seconds is None
    assert Progress().current_file is None
