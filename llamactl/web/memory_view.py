"""How pages say what memory a model takes, what this machine has, and whether the one fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamactl.errors import InvalidRequest
from llamactl.models.fit import (
    LARGEST_CONTEXT,
    USUAL_CONTEXT,
    Machine,
    Memory,
    Need,
    Place,
    Verdict,
    judge,
)
from llamactl.sizes import size_text

#: The contexts that a page offers; 0 is the model's own.
CHOICES = (4096, 8192, 16384, 32768, 65536, 131072, 0)

_FITTING: Mapping[Place | None, str] = {
    "gpu": "fits the GPU",
    "gpu_and_ram": "fits, partly on the GPU",
    "ram": "fits",
}


@dataclass(frozen=True)
class MemoryView:
    """What a model takes, with the figures behind it, and whether it fits."""

    total: str
    figures: str
    label: str
    tone: str


@dataclass(frozen=True)
class ContextView:
    """The context that memory is reckoned for, and the others that can be chosen."""

    chosen: str
    choices: tuple[tuple[str, str], ...]
    machine: str


def memory_view(need: Need, machine: Machine) -> MemoryView:
    """The need in words and figures, judged for this machine."""
    parts = [f"{size_text(need.weights)} weights"]
    if need.cache is None or need.compute is None:
        parts.append("a cache that is not known without its header")
    else:
        parts.append(f"{size_text(need.cache)} cache")
        parts.append(f"{size_text(need.compute)} compute")
    if need.projector:
        parts.append(f"{size_text(need.projector)} projector")
    label, tone = _judgement(judge(need, machine))
    if label == _FITTING["gpu"] and need.total > max(machine.usable_devices().values(), default=0):
        label = "fits the GPUs together"
    return MemoryView(size_text(need.total), " + ".join(parts), label, tone)


def context_view(ctx_size: int, machine: Machine) -> ContextView:
    """The choice of a context, and the machine in a sentence."""
    sizes = [*sorted({*CHOICES, ctx_size} - {0}), 0]
    choices = tuple(
        (str(size), f"{size:,} tokens" if size else "the model's own") for size in sizes
    )
    return ContextView(str(ctx_size), choices, machine_text(machine))


def machine_text(machine: Machine) -> str:
    """What is free, as sentences."""
    said = []
    if machine.ram is not None:
        said.append(f"{_free(machine.ram)} of this machine's memory are free.")
    for device in machine.devices:
        name = f"{device.name} ({device.description})" if device.description else device.name
        said.append(f"{name}: {_free(device.memory)} are free.")
    if not machine.devices:
        said.append("llama.cpp reports no GPU.")
    if len(machine.devices) > 1 and not machine.shares_memory:
        said.append("Unless told otherwise, a model is laid on all of them, layer by layer.")
    return " ".join(said)


def chosen_context(typed: str | None) -> int:
    """The context that a query asks for. Raises ``InvalidRequest``."""
    if not typed:
        return USUAL_CONTEXT
    if not typed.isascii() or not typed.isdecimal() or int(typed[:12]) > LARGEST_CONTEXT:
        raise InvalidRequest("ctx_size must be a number of tokens", field="ctx_size")
    return int(typed)


def _free(memory: Memory) -> str:
    return f"{size_text(memory.free)} of {size_text(memory.total)}"


def _judgement(verdict: Verdict) -> tuple[str, str]:
    if verdict.fits:
        return _FITTING[verdict.place], "good"
    if verdict.fits is None:
        return "not known", ""
    return ("not now", "warn") if verdict.when_idle else ("too large", "bad")
