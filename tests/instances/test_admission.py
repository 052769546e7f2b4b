from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamactl.instances.admission import (
    Amount,
    Decision,
    Demand,
    Limits,
    MemoryAsked,
    Place,
    decide,
)

NO_LIMIT = Limits(-1, {}, True)
WARN = Limits(-1, {}, True, "warn")
ENFORCE = Limits(-1, {}, True, "enforce")


def test_without_limits_everybody_may_run() -> None:
    assert decide(None, [Place(str(n), None, None) for n in range(100)], NO_LIMIT).admitted


def test_the_least_recently_used_idle_one_goes() -> None:
    taken = [Place("a", None, 5.0), Place("b", None, 3.0), Place("busy", None, None)]
    decision = decide(None, taken, Limits(3, {}, True))
    assert decision == Decision(True, evict=("b",), obstacles=("running",))


def test_a_busy_one_never_goes() -> None:
    taken = [Place("a", None, None), Place("b", None, None)]
    assert decide(None, taken, Limits(2, {}, True)) == Decision(False, obstacles=("running",))


def test_without_eviction_nobody_goes() -> None:
    assert not decide(None, [Place("a", None, 1.0)], Limits(1, {}, False)).admitted


def test_a_full_group_gives_up_one_of_its_own() -> None:
    taken = [Place("old", None, 1.0), Place("peer", "big", 9.0)]
    limits = Limits(-1, {"big": 1}, True)
    assert decide("big", taken, limits).evict == ("peer",)
    assert decide("small", taken, limits) == Decision(True)
    assert decide(None, taken, limits) == Decision(True)


def test_a_full_group_of_busy_ones_is_named() -> None:
    limits = Limits(9, {"big": 1}, True)
    decision = decide("big", [Place("peer", "big", None)], limits)
    assert (decision.admitted, decision.full) == (False, "big")


def test_with_both_limits_reached_the_group_gives_way() -> None:
    taken = [Place("old", None, 1.0), Place("peer", "big", 9.0)]
    assert decide("big", taken, Limits(2, {"big": 1}, True)).evict == ("peer",)


def test_a_limit_of_none_at_all_admits_nobody() -> None:
    assert not decide(None, [], Limits(0, {}, True)).admitted
    assert decide("g", [], Limits(5, {"g": 0}, True)).full == "g"


def gpu(name: str, idle_since: float | None, size: int, group: str | None = None) -> Place:
    return Place(name, group, idle_since, Amount({"CUDA0": size}))


def ram(name: str, idle_since: float | None, size: int) -> Place:
    return Place(name, None, idle_since, Amount(ram=size))


def ask(total: int, devices: int, ram: int, *, patient: bool = False, **demand: Any) -> MemoryAsked:
    return MemoryAsked(Demand(total, **demand), Amount({"CUDA0": devices}, ram), patient)


@pytest.mark.parametrize(
    ("taken", "asked", "limits", "evict", "site"),
    [
        # There is room.
        ([gpu("a", 1, 5)], ask(5, 5, 0), WARN, (), "devices"),
        ([ram("a", 1, 5)], ask(5, 0, 5), WARN, (), "memory"),
        # One idle instance is enough: the one used least recently.
        ([gpu("a", 2, 5), gpu("b", 1, 5)], ask(5, 0, 0), WARN, ("b",), "devices"),
        # The oldest is too small and the next is enough: the oldest stays.
        ([gpu("a", 1, 1), gpu("b", 2, 8)], ask(8, 0, 0), WARN, ("b",), "devices"),
        # Two are needed, in their order; the third stays.
        (
            [gpu("a", 1, 3), gpu("b", 2, 3), gpu("c", 3, 9)],
            ask(6, 0, 0),
            WARN,
            ("a", "b"),
            "devices",
        ),
        # One that holds nothing is not stopped for memory.
        ([gpu("a", 1, 0), gpu("b", 2, 5)], ask(5, 0, 0), WARN, ("b",), "devices"),
        # The GPU is worth an eviction, even where the machine's memory would do.
        ([gpu("a", 1, 5)], ask(5, 0, 50), WARN, ("a",), "devices"),
        # A busy one on the GPU stays; llama.cpp then puts layers into the machine's memory.
        ([gpu("a", None, 5)], ask(5, 2, 50), WARN, (), "memory"),
        # All layers must lie on the GPU: the machine's memory is no help.
        ([gpu("a", 1, 5)], ask(5, 0, 50, on_devices=5), WARN, ("a",), "devices"),
        # No layer may: what is on the GPU is left alone.
        ([gpu("a", 1, 5), ram("b", 2, 5)], ask(5, 0, 0, on_devices=0), WARN, ("b",), "memory"),
        # Mapped weights need not stay in memory, but they do where an idle one can go for it.
        ([ram("a", 1, 5)], ask(7, 0, 2, pageable=6), WARN, ("a",), "memory"),
        ([ram("a", None, 5)], ask(7, 0, 2, pageable=6), WARN, (), "paged"),
        ([ram("a", None, 5)], ask(7, 0, 2, pageable=6), ENFORCE, (), "paged"),
        # The limit and the memory together: one that helps both is enough.
        (
            [gpu("a", 1, 1), gpu("b", 2, 8)],
            ask(8, 0, 0),
            dataclasses.replace(WARN, running=2),
            ("b",),
            "devices",
        ),
        # A full group gives up one of its own, and memory comes from whoever is oldest.
        (
            [gpu("a", 1, 9), gpu("b", 2, 1, "g")],
            ask(8, 0, 0),
            Limits(-1, {"g": 1}, True, "warn"),
            ("a", "b"),
            "devices",
        ),
    ],
)
def test_no_more_are_stopped_than_must_be_and_the_longest_idle_first(
    taken: list[Place],
    asked: MemoryAsked,
    limits: Limits,
    evict: tuple[str, ...],
    site: str,
) -> None:
    decision = decide("g", taken, limits, asked)
    assert (decision.admitted, decision.evict, decision.site) == (True, evict, site)
    assert not decision.short


@pytest.mark.parametrize(
    ("patient", "limits", "busy", "admitted", "hopeless"),
    [
        # Busy ones hold what is missing: a person's start is tried, a request waits for them.
        (False, WARN, 9, True, False),
        (True, WARN, 9, False, False),
        (False, ENFORCE, 9, False, False),
        (True, ENFORCE, 9, False, False),
        # Nobody holds it: waiting is no use, and only a configured refusal refuses.
        (False, WARN, 1, True, True),
        (True, WARN, 1, True, True),
        (False, ENFORCE, 1, False, True),
        (True, ENFORCE, 1, False, True),
    ],
)
def test_what_does_not_fit_even_so_is_tried_waits_or_is_refused(
    patient: bool, limits: Limits, busy: int, admitted: bool, hopeless: bool
) -> None:
    taken = [gpu("busy", None, busy), gpu("idle", 1, 1)]
    decision = decide(None, taken, limits, ask(10, 0, 0, patient=patient))
    assert (decision.admitted, decision.short, decision.hopeless) == (admitted, True, hopeless)
    # What is tried all the same gets the best chance that it can have.
    assert decision.evict == (("idle",) if admitted else ())


def test_a_full_house_is_told_before_missing_memory() -> None:
    limits = Limits(1, {}, True, "enforce")
    decision = decide(None, [gpu("busy", None, 9)], limits, ask(10, 0, 0))
    assert (decision.admitted, decision.short) == (False, False)
    assert "running" in decision.obstacles


def test_without_eviction_memory_stops_nobody() -> None:
    limits = Limits(-1, {}, False, "enforce")
    decision = decide(None, [gpu("a", 1, 9)], limits, ask(9, 0, 0))
    assert (decision.admitted, decision.short, decision.hopeless) == (False, True, False)


def test_memory_counts_for_nothing_where_it_is_off_or_unknown() -> None:
    assert decide(None, [], NO_LIMIT, ask(10, 0, 0)) == Decision(True)
    assert decide(None, [], ENFORCE, None) == Decision(True)


def devices(low: int) -> st.SearchStrategy[dict[str, int]]:
    return st.dictionaries(st.sampled_from(["CUDA0", "CUDA1", "CUDA2"]), st.integers(low, 9))


places = st.builds(
    Place,
    st.uuids().map(str),
    st.sampled_from([None, "g"]),
    st.one_of(st.none(), st.floats(0, 100)),
    st.builds(Amount, devices(0), st.integers(0, 9)),
)


@given(
    st.lists(places, max_size=6),
    st.builds(
        Demand,
        st.integers(0, 30),
        st.integers(0, 30),
        among=st.one_of(st.none(), st.just(("CUDA0",)), st.just(("CUDA0", "CUDA2"))),
    ),
    st.builds(Amount, devices(-5), st.integers(-5, 9)),
    st.integers(-1, 4),
    st.booleans(),
)
def test_whatever_is_decided_keeps_to_the_limits_and_spares_the_busy(
    taken: list[Place], demand: Demand, free: Amount, running: int, patient: bool
) -> None:
    limits = Limits(running, {"g": 1}, True, "enforce")
    decision = decide("g", taken, limits, MemoryAsked(demand, free, patient))
    gone = [place for place in taken if place.name in decision.evict]
    assert all(place.idle_since is not None for place in gone)
    if not decision.admitted:
        assert not decision.evict
        return
    left = [place for place in taken if place not in gone]
    assert running < 0 or len(left) < running
    assert not any(place.group == "g" for place in left)
    available = sum((place.takes for place in gone), free)
    assert available.covers(decision.takes)
    assert sum(decision.takes.devices.values()) + decision.takes.ram + demand.pageable >= (
        demand.total
    )
    if demand.among is not None:
        assert set(decision.takes.devices) <= set(demand.among)


def on(name: str, idle_since: float | None, **sizes: int) -> Place:
    return Place(name, None, idle_since, Amount(sizes))


def test_only_the_devices_that_one_uses_count_for_it() -> None:
    free = Amount({"CUDA0": 2, "CUDA1": 8}, 0)
    asked = MemoryAsked(Demand(6, on_devices=6, among=("CUDA0",)), free)
    taken = [on("elsewhere", 1, CUDA1=2), on("here", 2, CUDA0=6)]
    assert decide(None, taken, WARN, asked).evict == ("here",)
    other = MemoryAsked(Demand(6, on_devices=6, among=("CUDA1",)), free)
    assert decide(None, taken, WARN, other) == Decision(
        True, takes=Amount({"CUDA1": 6}), site="devices"
    )
    missing = MemoryAsked(Demand(6, on_devices=6, among=("CUDA7",)), free)
    assert decide(None, taken, ENFORCE, missing).hopeless


@given(st.integers(0, 40), devices(0))
def test_each_device_gets_its_part_by_what_is_free_there(total: int, free: dict[str, int]) -> None:
    spread = Demand(total).spread(Amount(free, 0))
    assert spread.total == total and spread.ram == max(0, total - sum(free.values()))
    assert Amount(free).covers(Amount(spread.devices))
    for name, size in spread.devices.items():
        assert abs(size - min(total, sum(free.values())) * free[name] / sum(free.values())) <= 3


def test_two_on_one_of_two_devices_do_not_both_fit_because_the_other_is_empty() -> None:
    free = Amount({"CUDA0": 10, "CUDA1": 10})
    first = Demand(6, among=("CUDA0",))
    takes = decide(None, [], WARN, MemoryAsked(first, free)).takes
    assert takes == Amount({"CUDA0": 6})
    again = MemoryAsked(first, free - takes)
    decision = decide(None, [on("first", None, CUDA0=6)], ENFORCE, again)
    assert (decision.admitted, decision.short, decision.hopeless) == (False, True, False)
