"""What a start would do: the memory that it takes, and who would have to stop for it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamactl.errors import InvalidRequest, StartFailed
from llamactl.instances.admission import Decision
from llamactl.instances.modelfiles import ModelFiles, ResolveModel, find_files, shards_of
from llamactl.instances.options import Options
from llamactl.models.fit import CACHE_TYPES, Load, Machine, Need, estimate, judge
from llamactl.models.gguf import read_header

logger = logging.getLogger(__name__)

_GB = 10**9


@dataclass(frozen=True)
class StartPlan:
    """``needs`` and ``free`` are bytes, None where they cannot be told; ``why`` is a sentence."""

    needs: int | None
    free: int | None
    fits: bool | None
    evicts: tuple[str, ...]
    why: str


def plan_json(plan: StartPlan) -> dict[str, Any]:
    """The JSON form of a plan."""
    return {
        "needs": plan.needs,
        "free": plan.free,
        "fits": plan.fits,
        "evicts": list(plan.evicts),
        "why": plan.why,
    }


def make_plan(
    options: Options, resolve_model: ResolveModel, machine: Machine, decision: Decision
) -> StartPlan:
    """What a start with these options would do on this machine; nothing is changed.

    ``decision`` is who would make room. A model that cannot be loaded at all does not fit.
    """
    evicts = (decision.evict,) if decision.evict else ()
    free = sum(machine.usable())
    try:
        need = need_of(options, find_files(options, resolve_model))
    except StartFailed as error:
        return StartPlan(None, free, False, evicts, error.details)
    if need is None:
        return StartPlan(None, free, None, evicts, _room(decision))
    verdict = judge(need, machine)
    memory = _memory(need.total, free, verdict.fits, verdict.when_idle)
    fits = verdict.fits if decision.admitted else False
    return StartPlan(need.total, free, fits, evicts, f"{memory} {_room(decision)}")


def need_of(options: Options, files: ModelFiles) -> Need | None:
    """The memory that these files take with these options; None for a model that is not here."""
    if files.model is None:
        return None
    dimensions = None
    try:
        dimensions = read_header(files.model).dimensions
    except (InvalidRequest, OSError) as error:
        logger.info("%s tells nothing of its memory: %s", files.model, error)
    weights = sum(path.stat().st_size for path in shards_of(files.model))
    projector = _size(files.mmproj)
    return estimate(dimensions, weights, load_of(options), projector=projector)


def load_of(options: Options) -> Load:
    """How llama-server would load a model with these options."""
    usual = Load()

    def number(key: str, default: int) -> int:
        value = options.option(key)
        return value if isinstance(value, int) else default

    def cache_type(key: str, default: str) -> str:
        value = options.option(key)
        return value if isinstance(value, str) and value in CACHE_TYPES else default

    return Load(
        ctx_size=number("ctx_size", usual.ctx_size),
        cache_type_k=cache_type("cache_type_k", usual.cache_type_k),
        cache_type_v=cache_type("cache_type_v", usual.cache_type_v),
        ubatch_size=number("ubatch_size", usual.ubatch_size),
        parallel=number("parallel", 0) or None,
        flash_attn=options.option("flash_attn") != "off",
        swa_full=options.option("swa_full") is True,
    )


def _memory(needs: int, free: int, fits: bool | None, when_idle: bool) -> str:
    figures = f"It takes about {needs / _GB:.1f} GB, and {free / _GB:.1f} GB are free."
    if fits is False:
        also = "it would fit with nothing else running" if when_idle else "it is too large"
        return f"{figures} That is not enough; {also}."
    return figures


def _room(decision: Decision) -> str:
    if decision.evict:
        return f"{decision.evict} stops for it: it was idle for longest, and no more may run."
    if decision.admitted:
        return "No other instance has to stop."
    where = f" of the group {decision.full}" if decision.full else ""
    return f"As many instances{where} run as may, and none of them is idle."


def _size(path: Path | None) -> int:
    return path.stat().st_size if path is not None else 0
