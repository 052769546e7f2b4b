"""Servers that end with their test, whatever becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import LlamactlProcess

Make = Callable[..., LlamactlProcess]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Make]:
    """``make_server(settings, environment=…)``: a server, not yet started."""
    made: list[LlamactlProcess] = []

    def make(settings: dict[str, object] | None = None, **how: object) -> LlamactlProcess:
        folder = tmp_path / f"server{len(made)}"
        made.append(LlamactlProcess(folder, settings, **how))  # type: ignore[arg-type]  # handed on
        return made[-1]

    yield make
    for server in made:
        server.kill_everything()
