"""A field of a form as a page shows it: with what was typed, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "number", "check", "select", "lines", "date"]


@dataclass(frozen=True)
class Field:
    """One field. ``value`` is text as typed; a ticked box is any text.

    ``choices`` are (value, label): all that a select takes, what a text field suggests. ``stops``
    are the values of the slider that a number has where a script runs, the empty one first.
    """

    name: str
    label: str
    kind: Kind = "text"
    value: str = ""
    wrong: str = ""
    help: str = ""
    placeholder: str = ""
    choices: Sequence[tuple[str, str]] = ()
    stops: Sequence[str] = ()
    required: bool = False
    autofocus: bool = False
    width: Literal["", "third", "half", "wide"] = ""

    @property
    def input_type(self) -> str:
        """The type of the input element: numbers are text, so that nothing typed is swallowed."""
        return "date" if self.kind == "date" else "text"

    @property
    def numeric(self) -> bool:
        return self.kind == "number"
