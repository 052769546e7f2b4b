"""A preset of router mode, an INI file whose keys are llama-server's flags, line by line. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\r|\n")
_SECTION = re.compile(r"\s*\[(?P<name>[^]]*)\]")


@dataclass(frozen=True)
class PresetLine:
    """A line that says something: the name of a section, or a key with its value.

    What llama.cpp takes for a comment, blanks before it or not, is not in ``value``.
    """

    number: int
    section: str | None = None
    key: str = ""
    value: str = ""


def preset_lines(preset: str) -> Iterator[PresetLine]:
    """The lines that say something; they are counted from 1."""
    for number, line in enumerate(_LINE_END.split(preset), start=1):
        if section := _SECTION.match(line):
            yield PresetLine(number, section=section["name"].strip())
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if key and equals and key[0] not in "#;":
            yield PresetLine(number, key=key, value=re.split("[;#]", value, maxsplit=1)[0].strip())
