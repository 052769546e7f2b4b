"""How many tokens an answer cost, read from its last bytes.

Pure. llama.cpp tells at the end of an answer, whole or streamed; nothing before needs to be read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# A text that the model wrote has its quotes escaped, so these never match inside one.
_COUNT = re.compile(
    rb'"(prompt_tokens|prompt_n|input_tokens|completion_tokens|predicted_n|output_tokens)"'
    rb"\s*:\s*([0-9]{1,12})(?=\s*[,}])"
)
_SPEED = re.compile(rb'"predicted_per_second"\s*:\s*([0-9]{1,9}(?:\.[0-9]{1,20})?)(?=\s*[,}])')
_PROMPT = ("prompt_tokens", "input_tokens", "prompt_n")
_GENERATED = ("completion_tokens", "output_tokens", "predicted_n")


class Usage(NamedTuple):
    """Tokens read and tokens written."""

    prompt: int
    generated: int


#: What is not told counts as nothing.
UNKNOWN = Usage(0, 0)


def usage_in(tail: bytes) -> Usage:
    """What the end of an answer says; zeros where it says nothing."""
    counts = {match[1].decode(): int(match[2]) for match in _COUNT.finditer(tail)}
    return Usage(
        next((counts[name] for name in _PROMPT if name in counts), 0),
        next((counts[name] for name in _GENERATED if name in counts), 0),
    )


def speed_in(tail: bytes) -> float | None:
    """Tokens a second as llama.cpp measured them, if the end of an answer says so."""
    found = _SPEED.findall(tail)
    return float(found[-1]) if found else None
