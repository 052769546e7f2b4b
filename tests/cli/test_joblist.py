"""``llamactl jobs``: what a server downloads, seen and steered from a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.rest import FakeRest

JOBS = "/backends/llama-cpp/models/jobs"


def job(**changes: Any) -> dict[str, Any]:
    progress = {
        "bytes_downloaded": 500_000_000,
        "total_bytes": 2_000_000_000,
        "current_file": "tiny-Q4_K_M.gguf",
        "bytes_per_second": 10_000_000.0,
        "eta_seconds": 150.0,
        "files": [],
    }
    told = {"id": "00000000000000aa", "kind": "download", "repo": "org/tiny", "tag": "Q4_K_M"}
    state = {"status": "downloading", "detail": None, "retry_at": None, "error": None}
    return {**told, **state, "progress": progress, **changes}


def test_jobs_are_listed_with_how_far_they_are(run: Run, rest: FakeRest) -> None:
    waits = {**job()["progress"], "total_bytes": None, "bytes_per_second": 0, "eta_seconds": None}
    failed = {"status": "failed", "error": "The hub does not know it.", "progress": waits}
    rest.answers[f"GET {JOBS}"] = (
        200,
        {"jobs": [job(), job(detail="stalled"), job(kind="verify", tag=None, **failed)]},
    )
    heads, first, second, third = run("jobs").out.splitlines()
    assert heads.split() == ["ID", "MODEL", "STATUS", "DONE", "SPEED", "LEFT", "WHY"]
    assert "org/tiny:Q4_K_M  " in first and "25 % of 2.0 GB" in first
    assert "10.0 MB/s" in first and "2:30" in first
    assert "stalled" in second
    assert "org/tiny (verify)" in third and third.endswith("The hub does not know it.")


def test_jobs_are_given_to_programs_as_rest_gives_them(run: Run, rest: FakeRest) -> None:
    rest.answers[f"GET {JOBS}"] = (200, {"jobs": [job()]})
    assert json.loads(run("jobs", "--json").out) == [job()]


def test_without_jobs_it_is_told_how_to_begin_one(run: Run, rest: FakeRest) -> None:
    rest.answers[f"GET {JOBS}"] = (200, {"jobs": []})
    told = run("jobs")
    assert (told.code, told.out) == (0, "") and "llamactl download" in told.err


@pytest.mark.parametrize("action", ["pause", "resume", "retry"])
def test_each_job_that_is_named_is_told_what_to_do(run: Run, rest: FakeRest, action: str) -> None:
    for name in ("aa", "bb"):
        rest.answers[f"POST {JOBS}/{name}/{action}"] = (200, job(id=name))
    told = run("jobs", action, "aa", "bb")
    assert told.code == 0 and told.err.count("org/tiny") == 2
    assert [asked.method for asked in rest.asked if "/jobs/" in asked.target] == ["POST"] * 2


def test_a_job_is_removed(run: Run, rest: FakeRest) -> None:
    rest.answers[f"DELETE {JOBS}/aa"] = (204, b"")
    assert run("jobs", "rm", "aa").code == 0


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (0, ["1 job has left the list."]),
        (
            2,
            ["1 job has left the list.", "2 failed downloads stay: they have bytes to go on from."],
        ),
    ],
)
def test_what_has_ended_is_cleared(run: Run, rest: FakeRest, kept: int, said: list[str]) -> None:
    rest.answers[f"DELETE {JOBS}"] = (200, {"removed": 1, "kept": kept})
    told = run("jobs", "clear")
    assert (told.code, told.out) == (0, "")
    assert all(each in told.err for each in said) and len(told.err.splitlines()) == len(said)


def test_a_job_that_is_not_there_is_an_error(run: Run, rest: FakeRest) -> None:
    answer = {"error": "job_not_found", "details": "There is no job aa."}
    rest.answers[f"POST {JOBS}/aa/pause"] = (404, answer)
    told = run("jobs", "pause", "aa")
    assert told.code == 1 and "There is no job aa." in told.err
    assert run("jobs", "pause").code == 2
