"""What a person, a log and a program see of a download."""

from __future__ import annotations

import io
import json
import re
import time
from typing import Any

import pytest

from llamactl.cli.progress import Bar, Events, Lines, bar_lines, summary

ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def job(status: str = "downloading", done: int = 0, **changes: Any) -> dict[str, Any]:
    files = changes.pop(
        "files",
        [{"name": "m-Q4_K_M.gguf", "size": 2_000_000, "bytes_downloaded": done, "status": status}],
    )
    return {
        "id": "0123456789abcdef",
        "repo": "org/name",
        "tag": "Q4_K_M",
        "status": status,
        "detail": changes.pop("detail", None),
        "retry_at": changes.pop("retry_at", None),
        "progress": {
            "bytes_downloaded": done,
            "total_bytes": sum(file["size"] for file in files) or None,
            "current_file": files[0]["name"] if files else None,
            "bytes_per_second": changes.pop("speed", 0.0),
            "eta_seconds": changes.pop("eta", None),
            "files": files,
        },
    }


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_of_the_bar_is_wider_than_the_terminal(width: int) -> None:
    moving = job(done=500_000, speed=1e6, eta=1.5)
    for colour in (True, False):
        for line in bar_lines(moving, width, colour=colour):
            assert len(ESCAPE.sub("", line)) < width


@pytest.mark.parametrize(("width", "shown"), [(40, "25 %  1.0 MB/s, 0:02 left"), (20, "25 %")])
def test_a_narrow_terminal_gets_fewer_figures_and_none_in_part(width: int, shown: str) -> None:
    (line,) = bar_lines(job(done=500_000, speed=1e6, eta=1.5), width)
    assert line.endswith(shown)


def test_the_bar_shows_bytes_speed_and_time_left() -> None:
    (line,) = bar_lines(job(done=500_000, speed=1e6, eta=1.5), 100)
    for part in ("m-Q4_K_M.gguf", " 25 %", "500 kB of 2.0 MB", "1.0 MB/s", "0:02 left"):
        assert part in line


def test_several_files_have_a_line_each_and_one_for_the_whole() -> None:
    shards = [
        {"name": f"m-{n:05d}-of-00009.gguf", "size": 1000, "bytes_downloaded": 10, "status": status}
        for n, status in enumerate(["completed", "downloading", "downloading", "queued"])
    ]
    lines = bar_lines(job(done=1020, files=shards), 100)
    assert [line.split()[0] for line in lines] == [
        "m-00001-of-00009.gguf",
        "m-00002-of-00009.gguf",
        "all",
    ]


def test_a_terminal_without_unicode_gets_plain_characters() -> None:
    (line,) = bar_lines(job(done=500_000), 100, fancy=False)
    assert line.isascii()


def test_before_the_plan_is_known_the_bar_names_the_model() -> None:
    (line,) = bar_lines(job("queued", files=[]), 80)
    assert "org/name:Q4_K_M" in line
    assert "waits for its turn" in line


def test_a_wait_says_what_for_and_how_long() -> None:
    waiting = job(detail="rate_limited", retry_at=time.time() + 65)
    assert "rate limited, next try in 1:0" in summary(waiting)
    assert "stalled" in summary(job(detail="stalled"))
    assert summary(job(detail="verifying")).startswith("verifying  ")


def test_a_redrawn_bar_leaves_one_line_for_each_finished_file() -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    bar.update(job(done=500_000))
    bar.update(job(done=1_000_000))
    done = job("completed", done=2_000_000)
    bar.update(done)
    bar.update(done)
    bar.close()
    text = ESCAPE.sub("", stream.getvalue())
    assert text.count("ok m-Q4_K_M.gguf  2.0 MB") == 1
    assert stream.getvalue().count("\x1b[1A") == 4


def test_plain_lines_come_with_each_change_and_every_few_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [100.0]
    lines = Lines(clock=lambda: now[0])
    lines.update(job("queued"))
    lines.update(job(done=1))
    lines.update(job(done=2))
    now[0] += Lines.EVERY_SECONDS
    lines.update(job(done=1_000_000))
    lines.update(job("completed", done=2_000_000))
    said = capsys.readouterr()
    assert said.out == ""
    states = [line.split("  ")[0] for line in said.err.splitlines()]
    assert states == ["queued", "downloading", "downloading", "completed"]


def test_events_are_one_json_object_a_line_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    events = Events()
    for state in (job("queued"), job(done=1), job(done=1), job(done=2), job("completed", done=3)):
        events.update(state)
    said = capsys.readouterr()
    assert said.err == ""
    told = [json.loads(line) for line in said.out.splitlines()]
    assert [event["event"] for event in told] == ["queued", "downloading", "progress", "completed"]
    assert told[-1]["job"]["progress"]["bytes_downloaded"] == 3
