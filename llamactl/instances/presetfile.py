"""The preset.ini that came with a model, as settings that a person may take over. Pure.

A repository's author wrote it, so nothing of it is applied unasked, and what reaches beyond the
model is left out whatever the configuration allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llamactl.errors import InvalidRequest
from llamactl.instances import values
from llamactl.instances.flags import DANGEROUS, RESERVED, lookup
from llamactl.instances.permissions import SHOWN_FILES
from llamactl.instances.values import Value

#: Files are a model's neighbours only where a person says so.
_NAMES_FILES = frozenset({"path", "paths"})
#: What decides which model runs is no setting of the model.
_OTHER_MODELS = frozenset({"hf-repo", "hf-file", "spec-draft-hf", "lora-scaled"})
_VARIABLE = "LLAMA_ARG_"
_SECTION = re.compile(r"\[(?P<name>[^\]]*)\]")
_LINE_END = re.compile(r"\r\n|\r|\n")
#: Sections that hold for every tag, and the one of ``latest``.
_FOR_ALL = ("", "*")


@dataclass(frozen=True)
class PresetFile:
    """``options`` are ``backend_options``; ``left_out`` says of a key why it is not among them."""

    options: Mapping[str, Value]
    left_out: Mapping[str, str]


def read_preset(text: str, tag: str) -> PresetFile:
    """The settings of ``text`` for one tag: those for all, then those of the tag's own section.

    A tag without a section has that of ``default``. Keys are llama-server's flags with or without
    dashes, or the variables that stand for them.
    """
    sections = list(_sections(text))
    wanted = tag.lower() if any(name == tag.lower() for name, _, _ in sections) else "default"
    options: dict[str, Value] = {}
    left_out: dict[str, str] = {}
    for chosen in (*_FOR_ALL, wanted):
        for name, key, raw in sections:
            if name == chosen and key != "version":
                _take(key, raw, options, left_out)
    return PresetFile(options, left_out)


def _sections(text: str) -> Iterator[tuple[str, str, str]]:
    """Section, key and value of each line, the section in small letters."""
    section = ""
    for line in _LINE_END.split(text):
        line = line.strip()
        if found := _SECTION.fullmatch(line):
            section = found["name"].strip().lower()
        elif "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            yield section, key.strip(), re.split("[;#]", value, maxsplit=1)[0].strip()


def _take(key: str, raw: str, options: dict[str, Value], left_out: dict[str, str]) -> None:
    variable = key.startswith(_VARIABLE)
    found = lookup(key.removeprefix(_VARIABLE).lower() if variable else key)
    if found is None:
        left_out[key] = "no flag that llamactl knows"
        return
    flag, negated = found
    if flag.name in RESERVED:
        left_out[key] = RESERVED[flag.name]
    elif flag.name in DANGEROUS or flag.name in SHOWN_FILES or flag.kind in _NAMES_FILES:
        left_out[key] = "it reaches files, programs or networks beyond the model"
    elif flag.name in _OTHER_MODELS:
        left_out[key] = "it would run something else than this model"
    else:
        try:
            value = values.flag_value(flag, raw, key)
        except InvalidRequest as error:
            left_out[key] = error.message
            return
        options[flag.key] = not value if negated else value
