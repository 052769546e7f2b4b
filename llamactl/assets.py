"""Where the templates and the static files are.

They lie at the top level of the source tree and inside the package in a wheel. A marker file tells
which of the two folders is ours, because ``importlib.resources`` does not find them in an editable
installation.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def templates_dir() -> Path:
    """The folder of the page templates."""
    return _find("templates", "base.html")


def static_dir() -> Path:
    """The folder of style sheets, scripts and vendored libraries."""
    return _find("static", "llamactl.css")


def _find(folder: str, marker: str) -> Path:
    for parent in (_PACKAGE, _PACKAGE.parent):
        if (parent / folder / marker).is_file():
            return parent / folder
    raise FileNotFoundError(
        f"{folder}/{marker} is neither in {_PACKAGE} nor beside it: the installation is damaged"
    )
