"""Times as people read them, and what pages show of jobs, models and instances."""

from __future__ import annotations

from typing import Any

import pytest

from llamactl.config import Config
from llamactl.downloads.states import Job, JobStatus
from llamactl.instances.masking import unmasked
from llamactl.instances.options import Options
from llamactl.web.instance_views import calls_view, instance_view, instances_view
from llamactl.web.job_views import JobsView, current_jobs, job_view
from llamactl.web.pages.instance_fields import empty_form
from llamactl.web.pages.instance_form import options_json, values_of
from llamactl.web.texts import (
    ago_text,
    duration_text,
    moment_html,
    moment_text,
    plain,
    prose,
    whole_sentence,
)
from llamactl.web.views import cached_models_view, instance_name_for

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_spans_are_read_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_time_in_the_future_was_just_now() -> None:
    assert ago_text(NOW + 100, NOW) == "just now"
    assert ago_text(NOW - 7300, NOW) == "2 h ago"
    assert ago_text(NOW - 620 * 86400, NOW) == "1 y ago"


def test_a_sentence_ends_and_what_a_person_types_in_it_is_code() -> None:
    assert whole_sentence("llama-server --help lists them") == "llama-server --help lists them."
    assert whole_sentence("which one?") == "Which one?" and whole_sentence("") == ""
    assert prose("run `a <b>` & wait") == "run <code>a &lt;b&gt;</code> &amp; wait"


def test_a_moment_is_told_in_utc_and_for_a_script() -> None:
    assert moment_text(NOW) == "2027-01-15 08:00 UTC"
    assert moment_html(NOW, "seconds") == (
        '<time datetime="2027-01-15T08:00:00Z" data-local="seconds">2027-01-15 08:00:00 UTC</time>'
    )
    assert plain(moment_html(NOW)) == moment_html(NOW), "an element of ours is no foreign text"


def record(status: JobStatus, tag: str = "Q4_K_M", completed_at: float | None = None) -> Job:
    return Job("0" * 16, "download", "org/name", tag, status, NOW, 1, completed_at=completed_at)


def job(status: str, **changes: Any) -> dict[str, Any]:
    progress = {
        "bytes_downloaded": 250,
        "total_bytes": 1000,
        "current_file": "m.gguf",
        "bytes_per_second": 1_500_000,
        "eta_seconds": 65.0,
        "files": [],
        **changes.pop("progress", {}),
    }
    return {
        "id": "0" * 16,
        "kind": "download",
        "repo": "org/name",
        "tag": "Q4_K_M",
        "status": status,
        "detail": None,
        "retry_at": None,
        "progress": progress,
        "error": None,
        "error_code": None,
        "created_at": NOW - 60,
        "completed_at": None,
        "model_path": None,
        **changes,
    }


def verbs(view: Any) -> list[str]:
    return [verb for verb, _label, _kind in view.buttons]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("queued", ["pause", "remove"]),
        ("downloading", ["pause", "remove"]),
        ("paused", ["resume", "remove"]),
        ("failed", ["retry", "remove"]),
        ("completed", ["remove"]),
        ("cancelled", ["remove"]),
    ],
)
def test_a_job_offers_what_its_state_allows(status: str, expected: list[str]) -> None:
    assert verbs(job_view(job(status), NOW)) == expected


def test_a_running_job_tells_how_far_how_fast_and_how_long() -> None:
    view = job_view(job("downloading"), NOW)
    assert (view.downloaded, view.total, view.percent) == ("250 B", "1.0 kB", "25 %")
    assert (view.speed, view.eta, view.fraction) == ("1.5 MB/s", "1 min 5 s", 250)


def test_before_the_plan_is_made_nothing_is_promised() -> None:
    unknown = {"bytes_downloaded": 0, "total_bytes": None, "eta_seconds": None}
    view = job_view(job("queued", progress={**unknown, "bytes_per_second": 0}), NOW)
    assert (view.shows_progress, view.fraction, view.percent) == (False, None, "")
    assert (view.total, view.speed, view.eta) == ("", "", "")


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("downloading", ["completed", "downloading", "pending"]),
        ("queued", ["completed", "pending", "pending"]),
        ("paused", ["completed", "paused", "paused"]),
        ("failed", ["completed", "not done", "not done"]),
        ("cancelled", ["completed", "cancelled", "cancelled"]),
    ],
)
def test_no_file_of_a_job_that_rests_is_shown_as_downloading(status: str, shown: list[str]) -> None:
    files = [
        {"name": each, "size": 10, "bytes_downloaded": 5, "status": each}
        for each in ("completed", "downloading", "pending")
    ]
    view = job_view(job(status, progress={"files": files}), NOW)
    assert [file.status for file in view.files] == shown


def test_a_check_that_found_damage_does_not_look_as_if_it_had_read_nothing() -> None:
    nothing_whole = {"bytes_downloaded": 0, "total_bytes": 1000}
    failed = job("failed", kind="verify", completed_at=NOW - 300, progress=nothing_whole)
    assert not job_view(failed, NOW).shows_progress
    assert job_view({**failed, "kind": "download"}, NOW).shows_progress


def test_a_job_that_ended_says_how_long_ago() -> None:
    ended = job_view(job("completed", completed_at=NOW - 300), NOW).ended
    assert ended is not None and (ended.ago, ended.full) == ("5 min ago", "2027-01-15 07:55 UTC")
    assert job_view(job("downloading"), NOW).ended is None


def test_waiting_is_said_with_its_time() -> None:
    view = job_view(job("downloading", detail="rate_limited", retry_at=NOW + 90), NOW)
    assert view.label == "downloading, rate limited"
    assert view.said == "The hub asks to wait. The next try is in 1 min 30 s."


def test_the_page_of_models_shows_jobs_that_matter_now() -> None:
    jobs = [
        record("downloading"),
        record("failed", completed_at=NOW - 9999, tag="Q8_0"),
        record("completed", completed_at=NOW - 10),
        record("completed", completed_at=NOW - 9999),
    ]
    assert current_jobs(jobs, NOW) == jobs[:3]


def test_a_list_moves_while_one_of_its_jobs_does() -> None:
    running, done = job_view(job("downloading"), NOW), job_view(job("completed"), NOW)
    assert JobsView((done, running)).moving and not JobsView((done,)).moving


def test_what_can_go_on_is_not_offered_to_be_cleared() -> None:
    nothing = {"bytes_downloaded": 0, "total_bytes": None}
    over = [
        job("completed"),
        job("cancelled"),
        job("failed", progress=nothing),
        job("failed", kind="verify"),
    ]
    assert all(JobsView((job_view(each, NOW),)).clearable for each in over)
    going_on = [job("failed"), job("paused"), job("queued"), job("downloading", progress=nothing)]
    assert not JobsView(tuple(job_view(each, NOW) for each in going_on)).clearable


def test_a_failure_is_forgotten_once_a_later_job_is_about_the_same_model() -> None:
    failed = record("failed", completed_at=NOW - 9999, tag="q4_k_m")
    later = record("completed", completed_at=NOW - 9000)
    assert current_jobs([later, failed], NOW) == []
    assert current_jobs([failed, later], NOW) == [failed]


def model(tag: str, *files: dict[str, Any]) -> dict[str, Any]:
    total = sum(file["size"] for file in files)
    return {
        "repo": "org/name-GGUF",
        "tag": tag,
        "files": list(files),
        "total_size": total,
        "file_count": len(files),
        "complete": True,
    }


def test_files_that_tags_share_are_counted_once_and_the_gguf_comes_first() -> None:
    mmproj = {
        "name": "mmproj.gguf",
        "path": "/c/mmproj",
        "size": 10,
        "modified": 5,
        "type": "mmproj",
    }
    q4 = {"name": "q4.gguf", "path": "/c/q4", "size": 100, "modified": 6, "type": "gguf"}
    q8 = {"name": "q8.gguf", "path": "/c/q8", "size": 200, "modified": 7, "type": "gguf"}
    view = cached_models_view([model("Q8_0", mmproj, q8), model("Q4_K_M", mmproj, q4)], "/c", NOW)
    assert view.summary == "2 models, 310 B"
    assert [each.tag for each in view.models] == ["Q4_K_M", "Q8_0"]
    assert [file.type for file in view.models[0].files] == ["gguf", "mmproj"]


@pytest.mark.parametrize(
    ("repo", "tag", "name"),
    [
        ("bartowski/Llama-3.2-3B-Instruct-GGUF", "Q4_K_M", "llama-3.2-3b-instruct-q4_k_m"),
        ("org/name_gguf", "latest", "name"),
        ("org/Ünïcode", "UD-Q4_K_XL", "n-code-ud-q4_k_xl"),
        ("org/" + "x" * 90, "Q8_0", "x" * 50),
        ("org/m", "sub/m-Q4_K_M.gguf", "m-sub-m-q4_k_m.gguf"),
    ],
)
def test_an_instance_is_offered_a_name_that_it_may_have(repo: str, tag: str, name: str) -> None:
    assert instance_name_for(repo, tag) == name


def instance(status: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "name": "one",
        "status": status,
        "created": NOW - 60,
        "options": {"backend_type": "llama_cpp", "backend_options": {"model": "/m/x.gguf"}},
        "port": None,
        "pid": None,
        "health": None,
        "restarts": 0,
        "exit_code": None,
        "error": None,
        "in_flight": 0,
        "last_used": None,
        **changes,
    }


@pytest.mark.parametrize(
    ("status", "expected", "moving"),
    [
        ("stopped", ["start"], False),
        ("starting", ["stop"], True),
        ("running", ["restart", "stop"], False),
        ("stopping", [], True),
        ("restarting", ["start", "stop"], True),
        ("failed", ["start", "stop"], False),
    ],
)
def test_an_instance_offers_what_its_state_allows(
    status: str, expected: list[str], moving: bool
) -> None:
    view = instance_view(instance(status), NOW)
    assert (verbs(view), view.moving) == (expected, moving)


def test_instances_are_listed_by_name_in_their_groups() -> None:
    grouped = {"backend_options": {}, "group": "g"}
    views = [
        instance_view(instance("stopped", name=name, options=options), NOW)
        for name, options in (("b", {}), ("C", {}), ("a", {}), ("z", grouped), ("y", grouped))
    ]
    listed = instances_view(views, {}, -1).groups
    assert [[each.name for each in group.instances] for group in listed] == [
        ["a", "b", "C"],
        ["y", "z"],
    ]


def test_a_diagnosis_is_read_line_by_line() -> None:
    view = instance_view(instance("failed", error="No such file.\nCheck it.", exit_code=1), NOW)
    assert view.error_line == "No such file."
    assert ("Exit code", "1") in view.facts


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "/m/x.gguf"}, "/m/x.gguf"),
        ({"hf_repo": "org/name", "hf_file": "x.gguf"}, "org/name (x.gguf) from the hub"),
        ({}, "every cached model (router mode)"),
    ],
)
def test_the_model_of_an_instance_is_said_in_a_few_words(
    options: dict[str, str], said: str
) -> None:
    whole = {"backend_type": "llama_cpp", "backend_options": options}
    assert instance_view(instance("stopped", options=whole), NOW).model == said


def test_the_calls_name_the_instance_and_the_server() -> None:
    calls = calls_view("one", "https://llm.example/llamactl")
    assert "https://llm.example/llamactl/v1/chat/completions" in calls.curl
    assert 'base_url="https://llm.example/llamactl/v1"' in calls.openai


WHOLE: dict[str, Any] = {
    "backend_type": "llama_cpp",
    "backend_options": {
        "model": "/m/x.gguf",
        "ctx_size": 4096,
        "gpu_layers": "auto",
        "cache_type_k": "q8_0",
        "mmap": False,
        "jinja": True,
        "lora": ["/m/a.gguf", "/m/b.gguf"],
        "chat_template": 'first "line"\n  second',
        "temp": 0.7,
        "extra_args": {"brand-new": "x y", "brand-new-switch": True},
    },
    "aliases": ["a", "b"],
    "auto_restart": False,
    "max_restarts": 5,
    "restart_delay": 0.5,
    "on_demand_start": True,
    "idle_timeout": 2.5,
    "environment": {"TOKEN": "secret", "EMPTY": ""},
    "group": "g",
    "preset_ini": "[default]\nctx-size = 1",
}


def test_editing_without_a_change_changes_nothing(config: Config) -> None:
    form = empty_form(config)
    before = Options.from_json(WHOLE, config)
    values = values_of("one", before.to_json())
    assert "secret" not in str(values)
    after = Options.from_json(options_json(form, values, before.to_json()), config)
    assert unmasked(after, before) == before
