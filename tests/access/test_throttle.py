"""Wrong keys are slowed down by address."""

from __future__ import annotations

import pytest

from llamactl.access.throttle import Throttle
from llamactl.errors import TooManyRequests
from tests.access.conftest import Clock


def test_an_address_has_its_failures_and_then_must_wait() -> None:
    clock = Clock()
    throttle = Throttle(burst=3, seconds=10, clock=clock)
    for _ in range(3):
        throttle.check("a")
        throttle.failed("a")
    with pytest.raises(TooManyRequests) as caught:
        throttle.check("a")
    throttle.check("b")
    clock.now += caught.value.retry_after
    throttle.check("a")
    throttle.failed("a")
    with pytest.raises(TooManyRequests):
        throttle.check("a")


def test_a_flood_does_not_lengthen_the_wait_without_bound() -> None:
    clock = Clock()
    throttle = Throttle(burst=3, seconds=10, clock=clock)
    for _ in range(1000):
        throttle.failed("a")
    clock.now += 10
    throttle.check("a")


def test_the_memory_of_addresses_is_bounded() -> None:
    throttle = Throttle(burst=1, seconds=10, addresses=2, clock=Clock())
    for address in ("a", "b", "c"):
        throttle.failed(address)
    throttle.check("a")
    for address in ("b", "c"):
        with pytest.raises(TooManyRequests):
            throttle.check(address)
