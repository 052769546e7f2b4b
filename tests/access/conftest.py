"""Keys and sessions over a database of the test's own, with a clock that it sets."""

from __future__ import annotations

import pytest

from llamactl.access.keys import Keys
from llamactl.access.sessions import Sessions
from llamactl.config import Config
from llamactl.database import Database


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(config: Config, database: Database, clock: Clock) -> Keys:
    return Keys(config, database, clock)


@pytest.fixture
def sessions(config: Config, database: Database, clock: Clock) -> Sessions:
    return Sessions(config, database, clock)
