from __future__ import annotations

from llamactl.instances.admission import Decision, Limits, Place, decide

NO_LIMIT = Limits(-1, {}, True)


def test_without_limits_everybody_may_run() -> None:
    assert decide(None, [Place(str(n), None, None) for n in range(100)], NO_LIMIT).admitted


def test_the_least_recently_used_idle_one_goes() -> None:
    taken = [Place("a", None, 5.0), Place("b", None, 3.0), Place("busy", None, None)]
    assert decide(None, taken, Limits(3, {}, True)) == Decision(True, evict="b")


def test_a_busy_one_never_goes() -> None:
    taken = [Place("a", None, None), Place("b", None, None)]
    assert decide(None, taken, Limits(2, {}, True)) == Decision(False)


def test_without_eviction_nobody_goes() -> None:
    assert not decide(None, [Place("a", None, 1.0)], Limits(1, {}, False)).admitted


def test_a_full_group_gives_up_one_of_its_own() -> None:
    taken = [Place("old", None, 1.0), Place("peer", "big", 9.0)]
    limits = Limits(-1, {"big": 1}, True)
    assert decide("big", taken, limits) == Decision(True, evict="peer")
    assert decide("small", taken, limits) == Decision(True)
    assert decide(None, taken, limits) == Decision(True)


def test_a_full_group_of_busy_ones_is_named() -> None:
    limits = Limits(9, {"big": 1}, True)
    assert decide("big", [Place("peer", "big", None)], limits) == Decision(False, full="big")


def test_with_both_limits_reached_the_group_gives_way() -> None:
    taken = [Place("old", None, 1.0), Place("peer", "big", 9.0)]
    assert decide("big", taken, Limits(2, {"big": 1}, True)) == Decision(True, evict="peer")


def test_a_limit_of_none_at_all_admits_nobody() -> None:
    assert not decide(None, [], Limits(0, {}, True)).admitted
    assert decide("g", [], Limits(5, {"g": 0}, True)) == Decision(False, full="g")
