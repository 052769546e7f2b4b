"""Print ARCHITECTURE.md with today's list of files; ``make docs`` keeps the page up to date.

What a file is for is the first line of its docstring, so that it is said in one place.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- files: written by `make docs` -->\n", "<!-- end of files -->\n"


def page() -> str:
    """The whole page, its list of files replaced."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    return head + BEGIN + "".join(_rooms()) + END + tail


def _rooms() -> Iterator[str]:
    package = ROOT / "llamactl"
    folders = [package, *sorted(path.parent for path in package.rglob("*/__init__.py"))]
    for folder in folders:
        name = folder.relative_to(ROOT)
        yield f"\n**`{name}/`** {_first_line(folder / '__init__.py')}\n\n"
        for file in sorted(folder.glob("*.py")):
            if file.name != "__init__.py":
                yield f"- `{file.name}`: {_first_line(file)}\n"


def _first_line(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    if not docstring:
        sys.exit(f"{file} has no docstring")
    return docstring.partition("\n\n")[0].replace("\n", " ").replace("``", "`")


if __name__ == "__main__":
    sys.stdout.write(page())
