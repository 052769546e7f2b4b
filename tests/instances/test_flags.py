"""The table of flags, held against what the real llama-server says of itself."""

from __future__ import annotations

import re
import subprocess

import pytest

from llamactl.instances.embedded_flags import EMBEDDED_FLAGS
from llamactl.instances.flags import DANGEROUS, FLAGS, RESERVED, lookup, nearest
from tests.requirements import require

_NAME = re.compile(r"(?:^|, +)(--?[A-Za-z][\w.-]*)")


@pytest.fixture(scope="module")
def real_help() -> list[str]:
    program = require("llama-server")
    done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=60)
    return [line for line in done.stdout.splitlines() if line.startswith("-")]


def test_every_flag_of_the_real_llama_server_is_known(real_help: list[str]) -> None:
    removed = {"--spec-ngram-size-n", "--spec-ngram-size-m", "--spec-ngram-min-hits"}
    unknown = [
        name
        for line in real_help
        for name in _NAME.findall(line)
        if lookup(name) is None and name not in removed and not line.startswith("-----")
    ]
    assert len(real_help) > 200 and not unknown


def test_flags_with_a_value_are_told_from_those_without(real_help: list[str]) -> None:
    wrong = []
    for line in real_help:
        head = line[:40].rstrip() if len(line) > 40 and line[39] == " " else line
        names = _NAME.findall(head)
        if not names or line.startswith("-----") or (found := lookup(names[0])) is None:
            continue
        rest = head[head.rindex(names[-1]) + len(names[-1]) :].strip()
        takes = bool(re.match(r"[A-Z<{\[l(n]", rest))
        if takes != (found[0].values > 0):
            wrong.append(line)
    assert not wrong


def test_reserved_dangerous_and_embedded_names_are_flags() -> None:
    names = {flag.name for flag in FLAGS}
    assert set(RESERVED) <= names and names >= DANGEROUS and set(EMBEDDED_FLAGS) <= names


@pytest.mark.parametrize(
    ("typed", "meant"), [("ctxsize", "ctx-size"), ("gpu_layer", "gpu-layers"), ("zzzzzz", None)]
)
def test_the_nearest_known_name_is_found(typed: str, meant: str | None) -> None:
    assert nearest(typed) == meant
