"""What a start would do: the memory that it takes, and who would have to stop for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

from llamactl.errors import sentence_start
from llamactl.instances.admission import Amount, Decision, Site
from llamactl.models.fit import Need
from llamactl.sizes import size_text


class PlanJson(TypedDict):
    """What a start would do. Sizes are bytes, null where they cannot be told.

    `fits` is said of the moment after those in `evicts` have stopped, `starts` of a start now;
    `held` is what each of those that stop gives back.
    """

    needs: int | None
    free: int | None
    fits: bool | None
    evicts: list[str]
    why: str
    starts: bool
    site: Site | None
    parts: dict[str, int | None]
    held: dict[str, int]


@dataclass(frozen=True)
class StartPlan:
    """``needs`` and ``free`` are bytes, None where they cannot be told; ``why`` is in sentences.

    ``fits`` is said of the moment after those in ``evicts`` have stopped; ``starts`` is whether a
    start would go ahead now, which it also can where nothing is known or an estimate says no. At
    the ``site`` ``paged`` it runs, slowly, and does not fit.
    """

    needs: int | None
    free: int | None
    fits: bool | None
    evicts: tuple[str, ...]
    why: str
    starts: bool = True
    site: Site | None = None
    parts: dict[str, int | None] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)


def plan_json(plan: StartPlan) -> PlanJson:
    """The JSON form of a plan."""
    return {
        "needs": plan.needs,
        "free": plan.free,
        "fits": plan.fits,
        "evicts": list(plan.evicts),
        "why": plan.why,
        "starts": plan.starts,
        "site": plan.site,
        "parts": plan.parts,
        "held": plan.held,
    }


def running_plan(need: Need | None, free: Amount | None, status: str) -> StartPlan:
    """The plan of one that has its place: a start leaves it alone."""
    total = None if need is None else need.total
    return StartPlan(total, _total(free), True, (), f"It is {status} already.", parts=_parts(need))


def impossible_plan(free: Amount | None, why: str) -> StartPlan:
    """The plan of one that can never start, whatever is free."""
    return StartPlan(None, _total(free), False, (), sentence_start(why), starts=False)


def make_plan(
    need: Need | None,
    free: Amount | None,
    decision: Decision,
    held: dict[str, int],
    refusal: str = "",
    *,
    gpu: str = "",
) -> StartPlan:
    """``decision`` in figures and words; ``held`` is what each of those that stop gives back.

    ``refusal`` is what a start would be told where it is not admitted; ``gpu`` is what the devices
    are called that it can use, if there are any.
    """
    fits: bool | None = decision.admitted and decision.site in ("devices", "memory")
    if need is None or free is None:
        fits = None if decision.admitted else False
    figures = _figures(need, free, gpu)
    said = [figures, _evictions(decision, held), _outcome(decision, refusal, fits)]
    return StartPlan(
        needs=None if need is None else need.total,
        free=_total(free),
        fits=fits,
        evicts=decision.evict,
        why=" ".join(part for part in said if part),
        starts=decision.admitted,
        site=decision.site,
        parts=_parts(need),
        held={name: size for name, size in held.items() if name in decision.evict},
    )


def figures_text(needs: int, free: Amount, gpu: str = "", *, whole: bool = True) -> str:
    """What is needed and what is there, as a sentence; ``whole``: nothing more is needed."""
    where = f"{size_text(max(0, free.ram))} are free"
    if gpu:
        where = f"{size_text(free.on_devices)} are free on {gpu}"
        where += f" and {size_text(free.ram)} beside it" if free.ram > 0 else ""
    takes = f"about {size_text(needs)}" if whole else f"more than {size_text(needs)}"
    return f"It takes {takes}, and {where}"


def _figures(need: Need | None, free: Amount | None, gpu: str) -> str:
    if need is None:
        return "The memory that it takes is not known before it is loaded."
    if free is None:
        return f"It takes about {size_text(need.total)}; how much is free is not known."
    beyond = "" if need.whole else " How much more its header does not tell."
    return f"{figures_text(need.total, free, gpu, whole=need.whole)}.{beyond}"


def _evictions(decision: Decision, held: dict[str, int]) -> str:
    if not decision.evict:
        stays = decision.admitted and not decision.short
        return "No other instance has to stop." if stays else ""
    names = _listed([_named(name, held.get(name, 0)) for name in decision.evict])
    reasons = []
    if set(decision.obstacles) & {"group", "running"}:
        reasons.append("no more may run")
    if "memory" in decision.obstacles:
        reasons.append("memory is needed")
    so = f"idle for longest, and {' and '.join(reasons)}"
    if len(decision.evict) > 1:
        return f"{names} stop for it: they were {so}."
    return f"{names} stops for it: it was {so}."


def _outcome(decision: Decision, refusal: str, fits: bool | None) -> str:
    if not decision.admitted:
        return refusal
    if decision.short:
        more = "; it would fit with nothing else running" if not decision.hopeless else ""
        return f"That is not enough by this estimate{more}. It is started all the same."
    if decision.site == "paged":
        again = "its weights do not stay in memory and are read from disk again"
        return f"That is not enough: {again}, which is slow."
    return "That is not enough by this estimate. It is started all the same." * (fits is False)


def _named(name: str, held: int) -> str:
    return f"{name} ({size_text(held)})" if held else name


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _parts(need: Need | None) -> dict[str, int | None]:
    if need is None:
        return {}
    return {
        "weights": need.weights,
        "cache": need.cache,
        "compute": need.compute,
        "projector": need.projector,
    }


def _total(free: Amount | None) -> int | None:
    return None if free is None else free.on_devices + max(0, free.ram)
