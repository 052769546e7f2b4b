"""The page about the architecture keeps up with the code."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
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


def test_every_dependency_says_why_it_is_there_and_no_other_does() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    needed = settings["options"]["install_requires"].split()
    needed += settings["options.extras_require"]["embedded"].split()
    names = {re.split("[<>=]", each)[0].lower() for each in needed}
    names |= {file.name.partition("-")[0] for file in (ROOT / "static/vendor").glob("*.js")}
    cells = [row[0].partition("(")[0].lower() for row in _rows("package")]
    assert {name for cell in cells for name in re.findall(r"[\w-]+", cell)} == names


def test_each_thread_stands_in_the_table_once_by_its_name() -> None:
    told = [name for row in _rows("thread") for name in re.findall("`([^`]+)`", row[0])]
    # What a number or a name takes the place of is not compared.
    heads = [re.sub("0?…$|NAME$", "", name) for name in told]
    files = (ROOT / "llamactl").rglob("*.py")
    made = {head for file in files for head in _thread_names(ast.parse(file.read_text("utf-8")))}
    assert sorted(heads) == sorted(made)


def _thread_names(tree: ast.Module) -> Iterator[str]:
    """The names that threads get in a module, up to the first part that differs.

    A timer's name is assigned once it is made.
    """
    for node in ast.walk(tree):
        named: ast.expr | None = None
        if isinstance(node, ast.Call):
            maker = ast.unparse(node.func).rpartition(".")[2]
            keywords = {each.arg: each.value for each in node.keywords}
            if maker in ("Thread", "__init__"):
                named = keywords.get("name")
            elif maker in ("ThreadPoolExecutor", "_thread"):
                named = node.args[1]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith(".name"):
            named = node.value
        first = named.values[0] if isinstance(named, ast.JoinedStr) else named
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


def _rows(first_cell: str) -> list[list[str]]:
    lines = PAGE.partition(f"| {first_cell} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _tells(row: list[str], state: str, event: str, after: str) -> bool:
    return state in row[0] and event in row[1] and after in row[2]
