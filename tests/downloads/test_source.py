"""The address of a file's bytes, as the connections of a transfer share it."""

from __future__ import annotations

import threading
import time

import pytest

from llamactl.downloads.source import Source
from llamactl.errors import RateLimited
from llamactl.hub.remote import RemoteFile
from tests.downloads.waiting import eventually

REMOTE = RemoteFile("http://127.0.0.1:9/x", 1, "a" * 64, "", "b" * 40, {})


def test_a_clock_that_is_set_back_makes_no_day_of_a_moment_that_the_hub_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []

    def resolve(_halt: threading.Event) -> RemoteFile:
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise RateLimited("not now", retry_at=time.time() + 0.2)
        return REMOTE

    source = Source("m.gguf", resolve, threading.Event())
    with pytest.raises(RateLimited):
        source.get()
    before = time.time()
    monkeypatch.setattr("llamactl.downloads.source.time.time", lambda: before - 86_400)

    def found() -> RemoteFile | None:
        try:
            return source.get()[0]
        except RateLimited:
            return None

    assert eventually(found, lambda remote: remote is not None, limit=30) == REMOTE
    assert asked[1] - asked[0] >= 0.1, "what the hub asked for is kept"
