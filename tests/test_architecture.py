"""The page about the architecture keeps up with the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from llamactl.downloads import states as jobs
from llamactl.instances import states as instances

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_every_file_stands_in_the_page_with_what_it_is_for() -> None:
    written = subprocess.run(
        [sys.executable, ROOT / "docs" / "write_files.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert written.stdout == PAGE, "run `make docs`"


def test_the_two_tables_are_the_machines() -> None:
    for (state, event), after in jobs.TRANSITIONS.items():
        assert any(_tells(row, state, event, after) for row in _rows("Job from")), (state, event)
    for (status, happening), then in instances.TRANSITIONS.items():
        rows = _rows("Instance from")
        assert any(_tells(row, status, happening, then) for row in rows), (status, happening)


def _rows(first_cell: str) -> list[list[str]]:
    lines = PAGE.partition(f"| {first_cell} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _tells(row: list[str], state: str, event: str, after: str) -> bool:
    return state in row[0] and event in row[1] and after in row[2]
