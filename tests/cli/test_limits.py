"""``llamactl settings``: the limits of downloads, with and without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, held
from tests.cli.rest import FakeRest

SETTINGS = "/backends/llama-cpp/models/settings"


def test_the_limits_are_those_of_the_configuration_at_first(run: Run) -> None:
    told = run("settings")
    assert told.code == 0, told.err
    assert told.out == "max_concurrent   2\nbandwidth_limit  none\n"


def test_a_change_holds_until_it_is_reset(run: Run) -> None:
    assert run("settings", "--bandwidth-limit", "20MB", "--max-concurrent", "4").code == 0
    shown = run("settings").out
    assert "max_concurrent   4\nbandwidth_limit  20.0 MB/s\n" in shown
    assert "The configuration says 2 at a time and a limit of none" in shown
    assert run("settings", "--bandwidth-limit", "none").code == 0
    answer = json.loads(run("settings", "--json").out)
    configured = {"bandwidth_limit": None, "max_concurrent": 2}
    assert answer == {
        "bandwidth_limit": None,
        "max_concurrent": 4,
        "changed": True,
        "configured": configured,
    }
    run("settings", "--reset")
    answer = json.loads(run("settings", "--json").out)
    assert answer == {**configured, "changed": False, "configured": configured}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--bandwidth-limit", "fast"], "'fast' must be a number of bytes, such as 20MB"),
        (["--bandwidth-limit", "10"], "'10' must be at least 1,024 bytes"),
        (["--max-concurrent", "0"], "'0' must"),
        (["--reset", "--max-concurrent", "3"], "--reset"),
    ],
)
def test_a_limit_that_is_none_is_bad_usage(run: Run, arguments: list[str], told: str) -> None:
    outcome = run("settings", *arguments)
    assert outcome.code == 2
    assert told in outcome.err


def test_a_running_server_is_told_and_asked(run: Run, tmp_path: Path) -> None:
    answer = {
        "bandwidth_limit": 5_000_000,
        "max_concurrent": 2,
        "changed": True,
        "configured": {"bandwidth_limit": None, "max_concurrent": 2},
    }
    with FakeRest() as rest:
        for method in ("GET", "PUT", "DELETE"):
            rest.answers[f"{method} {SETTINGS}"] = (200, answer)
        with held(tmp_path / "data", pid=1, url=rest.url):
            assert "5.0 MB/s" in run("settings", "--bandwidth-limit", "5MB").out
            assert run("settings", "--reset").code == 0
    calls = [(asked.method, asked.body) for asked in rest.asked]
    assert calls == [
        ("PUT", {"bandwidth_limit": 5_000_000}),
        ("GET", None),
        ("DELETE", None),
        ("GET", None),
    ]


def test_a_named_server_is_asked(run: Run, rest: FakeRest) -> None:
    limits = {"bandwidth_limit": None, "max_concurrent": 3}
    answer = {**limits, "changed": False, "configured": limits}
    rest.answers[f"GET {SETTINGS}"] = (200, answer)
    assert run("settings").out == "max_concurrent   3\nbandwidth_limit  none\n"
