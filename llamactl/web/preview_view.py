"""What a form shows of the instance to be: the memory that it takes, and the line that runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from llamactl.errors import LlamactlError
from llamactl.instances.masking import masked_words
from llamactl.instances.options import Options
from llamactl.instances.preview import Preview
from llamactl.models.fit import Need
from llamactl.secret import MASK
from llamactl.sizes import size_text
from llamactl.web.memory_view import machine_text

_FLAG = re.compile("-{1,2}[A-Za-z]")


@dataclass(frozen=True)
class PreviewView:
    """``said`` is the estimate in a sentence, ``parts`` are its figures.

    ``wrong`` is why there is none.
    """

    said: str = ""
    label: str = ""
    tone: str = ""
    parts: tuple[tuple[str, str], ...] = ()
    machine: str = ""
    command: str = ""
    wrong: str = ""


def preview_view(preview: Preview, options: Options) -> PreviewView:
    """What an instance with these options would run and take; nothing in it is secret."""
    machine = machine_text(preview.machine)
    if preview.obstacle is not None:
        return PreviewView(machine=machine, wrong=preview.obstacle.details)
    command = command_text(preview.words, options)
    if preview.need is None:
        return PreviewView(said=_unknown(options), machine=machine, command=command)
    said = f"About {size_text(preview.need.total)} in all."
    label, tone = _judgement(preview, preview.need)
    return PreviewView(said, label, tone, tuple(_parts(preview.need)), machine, command)


def wrong_view(error: LlamactlError) -> PreviewView:
    """Where what was typed makes no options."""
    return PreviewView(wrong=error.details)


def command_text(words: Sequence[str], options: Options) -> str:
    """The line as a shell would take it, with the instance's variables in front, a flag a line."""
    lines = [f"{name}={MASK} \\" for name in options.environment]
    line = ""
    for word in masked_words(words):
        if _FLAG.match(word) and line:
            lines.append(f"{line} \\")
            line = "  " + shlex.quote(word)
        else:
            line = f"{line} {shlex.quote(word)}" if line else shlex.quote(word)
    return "\n".join([*lines, line])


def _judgement(preview: Preview, need: Need) -> tuple[str, str]:
    verdict = preview.verdict
    if verdict is None or (preview.site is not None and not need.whole) or verdict.fits is None:
        return "not known", ""
    if preview.site == "devices":
        return "fits the GPU", "good"
    if preview.site == "memory":
        return "fits, partly on the GPU" if verdict.place == "gpu_and_ram" else "fits", "good"
    if preview.site == "paged":
        return "slow: read from disk again and again", "warn"
    return ("not now", "warn") if verdict.when_idle else ("too large", "bad")


def _parts(need: Need) -> list[tuple[str, str]]:
    unknown = "not told by the file"
    tokens = f" ({need.ctx_size:,} tokens)" if need.cache is not None else ""
    parts = [
        ("Weights", size_text(need.weights)),
        (f"Context{tokens}", unknown if need.cache is None else size_text(need.cache)),
        ("Working memory", unknown if need.compute is None else size_text(need.compute)),
    ]
    if need.projector:
        parts.append(("Projector", size_text(need.projector)))
    return [*parts, ("Total", size_text(need.total))]


def _unknown(options: Options) -> str:
    if options.is_router:
        return "A router: each model takes its own memory when it is loaded."
    return "llama.cpp finds the model itself; what it takes is known once it runs."
