"""The form of an instance: what it begins with, what it shows, and what its buttons fill in."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.fakes.fake_hub import FakeHub
from tests.fakes.gguf_files import fake_mmproj, tiny_gguf_bytes
from tests.web.conftest import PATIENCE
from tests.web.visitor import Element, Visitor, parse

REPO = "acme/Tiny-GGUF"
REFERENCE = f"{REPO}:Q4_K_M"
PRESET = b"""
[*]
temp = 0.6
tools = all
[Q4_K_M]
ctx-size = 2048
"""


@pytest.fixture
def visitor(anonymous: FlaskClient, management_key: str, hub: FakeHub) -> Visitor:
    """Someone who has a model that sees, with a preset."""
    files = {"Tiny-Q4_K_M.gguf": tiny_gguf_bytes(), "mmproj-F16.gguf": fake_mmproj()}
    hub.add_repo(REPO, {**files, "preset.ini": PRESET})
    visitor = Visitor(anonymous)
    visitor.log_in(management_key)
    visitor.press("Download Model")
    visitor.press("Start Download", repo=REFERENCE)
    deadline = time.monotonic() + PATIENCE
    while "completed" not in visitor.open("/models").text:
        assert time.monotonic() < deadline, visitor.page.text
        time.sleep(0.02)
    return visitor


def typed(page: Element, name: str) -> str:
    element = page.one(id=name)
    if element.tag == "textarea":
        return element.raw_text.removeprefix("\n")
    if element.tag == "select":
        return next(
            (each["value"] for each in element.all("option") if "selected" in each.attributes), ""
        )
    return element["value"]


def estimate(page: Element) -> str:
    return page.one(id="estimate").text


def line(page: Element) -> str:
    return page.one(id="line").text.replace(" \\ ", " ")


def test_a_cached_model_runs_after_two_clicks(visitor: Visitor, runtime: Any) -> None:
    visitor.press(f"Run {REFERENCE}")
    visitor.press("Create and start")
    assert visitor.path == "/instances/tiny-q4_k_m", visitor.page.text
    started = runtime.supervisor.start_instance("tiny-q4_k_m", wait=PATIENCE)
    assert started.status == "running"


def test_the_form_begins_with_what_suits_the_model(visitor: Visitor) -> None:
    page = visitor.press(f"Run {REFERENCE}")
    assert typed(page, "name") == "tiny-q4_k_m"
    assert typed(page, "model").endswith("acme_Tiny-GGUF_Tiny-Q4_K_M.gguf")
    assert typed(page, "mmproj").endswith("acme_Tiny-GGUF_mmproj-F16.gguf")
    assert typed(page, "ctx_size") == "8192"
    for automatic in ("gpu_layers", "parallel", "threads"):
        assert typed(page, automatic) == ""
    visitor.press("Create Instance")
    visitor.open("/models")
    assert typed(visitor.press(f"Run {REFERENCE}"), "name") == "tiny-q4_k_m-2"


def test_a_reference_brings_its_projector_by_itself(visitor: Visitor) -> None:
    page = visitor.open(f"/instances/new?model={REFERENCE}")
    assert typed(page, "model") == REFERENCE and typed(page, "mmproj") == ""
    assert "--mmproj" in line(page)


def test_the_estimate_says_its_parts_and_what_is_free(visitor: Visitor) -> None:
    page = visitor.press(f"Run {REFERENCE}")
    said = estimate(page)
    for part in ("Weights", "Context (8,192 tokens)", "Working memory", "Projector", "Total"):
        assert part in said
    assert "fits" in said and "of this machine's memory are free" in said


def test_the_estimate_follows_what_is_typed_without_a_script(
    visitor: Visitor, runtime: Any
) -> None:
    before = estimate(visitor.press(f"Run {REFERENCE}"))
    page = visitor.press("Estimate", ctx_size="65536", cache_type_k="q8_0", group="kept & <b>")
    assert "Context (65,536 tokens)" in estimate(page) != before
    assert "--ctx-size 65536" in line(page) and "--cache-type-k q8_0" in line(page)
    assert typed(page, "group") == "kept & <b>" and typed(page, "cache_type_k") == "q8_0"
    assert runtime.supervisor.instances() == []


def test_what_is_wrong_is_told_by_the_estimate_and_beside_its_field(visitor: Visitor) -> None:
    visitor.press(f"Run {REFERENCE}")
    page = visitor.press("Estimate", ctx_size="many", aliases="kept")
    assert page.one(id="ctx_size-wrong").text and typed(page, "aliases") == "kept"
    assert "must be a number" in estimate(page)


def test_everything_that_is_wrong_is_told_at_once_in_the_words_of_the_form(
    visitor: Visitor,
) -> None:
    visitor.press(f"Run {REFERENCE}")
    page = visitor.press("Create Instance", name="a b", ctx_size="many")
    assert visitor.answer.status_code == 400
    assert page.one(id="ctx_size-wrong").text == "Context size must be a number."
    assert "cannot be an instance's name" in page.one(id="name-wrong").text


def test_a_model_that_is_not_cached_is_said_to_be_missing(visitor: Visitor) -> None:
    visitor.open("/instances/new")
    page = visitor.press("Estimate", name="one", model="acme/Other-GGUF:Q8_0")
    assert "is not in the cache" in estimate(page)
    remedy = "<code>llamactl download acme/Other-GGUF:Q8_0</code>"
    assert remedy in visitor.answer.text
    page = visitor.press("Create Instance")
    assert visitor.path == "/instances/one" and "It cannot start as it is." in page.text
    assert remedy in visitor.answer.text


def test_an_empty_form_asks_for_a_model_and_finds_nothing_wrong_yet(visitor: Visitor) -> None:
    page = visitor.open("/instances/new")
    assert "With a model" in estimate(page)
    assert not list(page.one(id="estimate").all("span"))
    page = visitor.press("Estimate", hf_repo=REFERENCE)
    assert "With a model" not in estimate(page)


def test_a_number_that_is_none_is_told_beside_the_estimate_by_its_label(visitor: Visitor) -> None:
    visitor.open("/instances/new")
    page = visitor.press("Estimate", name="one", model=REFERENCE, ctx_size="lots")
    assert estimate(page).startswith("Context size must be a number.")


def test_a_router_is_said_to_be_one(visitor: Visitor) -> None:
    visitor.open("/instances/new")
    page = visitor.press("Estimate", name="one", model="")
    assert "A router" in estimate(page) and "--model" not in line(page)


def test_the_script_gets_the_same_in_parts_and_nothing_is_written_down(
    visitor: Visitor, runtime: Any
) -> None:
    page = visitor.press(f"Run {REFERENCE}")
    values = {
        each["name"]: typed(page, each["id"])
        for each in page.one(id="instance-form").all()
        if each.get("id") and each.get("name") and each.get("type") != "checkbox"
    }
    token = next(page.one(id="instance-form").all(name="csrf_token"))["value"]
    before = runtime.audit.read(100).entries
    address = page.one(id="estimate")["hx-post"]
    answer = visitor.client.post(address, data={**values, "csrf_token": token, "ctx_size": "4096"})
    assert answer.status_code == 200
    part = parse(answer.text)
    assert "Context (4,096 tokens)" in part.text
    assert "--ctx-size 4096" in line(part)
    assert runtime.audit.read(100).entries == before


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--host 0.0.0.0", "--host cannot be set"),
        ("--other-url x", "Extra arguments: --other-url "),
    ],
)
def test_a_flag_that_is_refused_among_many_is_named(
    visitor: Visitor, flags: str, told: str
) -> None:
    visitor.press(f"Run {REFERENCE}")
    page = visitor.press("Create Instance", extra_args=flags)
    assert page.one(id="extra_args-wrong").text.startswith(told)


def test_the_line_shows_no_value_that_opens_something(visitor: Visitor) -> None:
    visitor.press(f"Run {REFERENCE}")
    page = visitor.press(
        "Estimate",
        environment="TOKEN=secret-value",
        extra_args="--some-token secret-value\n--other-place http://me:secret-value@host/",
    )
    said = line(page)
    assert "TOKEN=***" in said and "--some-token '***'" in said and "http://***@host/" in said
    assert "secret-value" not in said


def test_a_pasted_line_fills_the_fields_and_names_what_it_cannot_take(visitor: Visitor) -> None:
    page = visitor.press(f"Run {REFERENCE}")
    model = typed(page, "model")
    pasted = f"A=1 llama-server -m {model} -c 2048 -ngl 7 -fa on --port 9 --frobnicate x"
    page = visitor.press("Fill the fields", command=pasted, aliases="kept")
    assert [typed(page, each) for each in ("ctx_size", "gpu_layers", "flash_attn", "aliases")] == [
        *("2048", "7", "on", "kept")
    ]
    assert typed(page, "extra_args") == "--frobnicate x"
    assert typed(page, "environment") == "A=1"
    assert typed(page, "mmproj") == "", "the line has none"
    assert "--port : llamactl finds a free port by itself" in page.text
    visitor.press("Create Instance")
    assert visitor.path == "/instances/tiny-q4_k_m", visitor.page.text


def test_a_pasted_line_that_fetches_what_is_cached_has_it_as_its_model(visitor: Visitor) -> None:
    visitor.press(f"Run {REFERENCE}")
    page = visitor.press("Fill the fields", command=f"llama-server -hf {REFERENCE} -c 2048")
    assert (typed(page, "model"), typed(page, "hf_repo")) == (REFERENCE, "")
    assert f"{REFERENCE} is cached and is the model, so nothing is fetched" in page.text
    assert "About" in estimate(page) and "-hf" not in line(page)
    assert "--mmproj" in line(page), "as with -hf"
    page = visitor.press("Fill the fields", command=f"llama-server -hf {REFERENCE} --no-mmproj")
    assert typed(page, "model") == REFERENCE and "--mmproj " not in line(page)


@pytest.mark.parametrize(
    "flags", [f"-hf {REPO}:Q8_0", f"-hf {REPO} -hff Tiny-Q4_K_M.gguf", "-hf other/Tiny-GGUF"]
)
def test_a_pasted_line_that_fetches_something_else_is_left_as_it_is(
    visitor: Visitor, flags: str
) -> None:
    visitor.press(f"Run {REFERENCE}")
    page = visitor.press("Fill the fields", command=f"llama-server {flags}")
    assert typed(page, "model") == "" and typed(page, "hf_repo") in flags.split()


@pytest.mark.parametrize("pasted", ["", "rm -rf /", "llama-server -c many", "llama-server 'a"])
def test_a_line_that_is_none_is_told_beside_it(visitor: Visitor, pasted: str) -> None:
    visitor.press(f"Run {REFERENCE}")
    page = visitor.press("Fill the fields", command=pasted, aliases="kept")
    assert visitor.answer.status_code == 400
    assert page.one(id="command-wrong").text and page.one(id="command")["aria-invalid"] == "true"
    assert typed(page, "command") == pasted and typed(page, "aliases") == "kept"
    assert page.one(id="paste-line").get("open") is not None


def test_a_preset_is_offered_and_applied_only_by_its_button(visitor: Visitor) -> None:
    page = visitor.press(f"Run {REFERENCE}")
    offered = page.one(id="preset").text
    assert "--temp 0.6" in offered and "tools" in offered
    assert "--temp" not in line(page)
    page = visitor.press("Use these settings", aliases="kept")
    assert typed(page, "ctx_size") == "2048" and typed(page, "aliases") == "kept"
    assert typed(page, "extra_args") == "--temp 0.6"
    assert "--tools" not in line(page) and "--temp 0.6" in line(page)


def test_a_duplicate_has_the_options_of_the_other_and_its_secrets(
    visitor: Visitor, runtime: Any
) -> None:
    visitor.press(f"Run {REFERENCE}")
    visitor.press(
        "Create Instance", name="one", environment="T=secret-value", aliases="a", group="g"
    )
    visitor.press("Duplicate one")
    assert "secret-value" not in visitor.answer.text
    assert typed(visitor.page, "name") == "one-2" and typed(visitor.page, "group") == "g"
    visitor.press("Create Instance")
    assert visitor.path == "/instances/one-2", visitor.page.text
    first, second = (runtime.supervisor.get(name).options for name in ("one", "one-2"))
    assert second.environment == {"T": "secret-value"} and second.aliases == ()
    assert second.backend_options == first.backend_options


def test_every_field_says_what_it_is_for(visitor: Visitor) -> None:
    page = visitor.open("/instances/new")
    fields = [each for each in page.one(id="instance-form").all() if each.get("name")]
    shown = [each for each in fields if each.tag != "button" and each.get("type") != "hidden"]
    assert len(shown) > 20
    for each in shown:
        described = each.get("aria-describedby") or ""
        assert re.search(r"\S+-help", described), each["name"]


def test_half_a_character_is_no_value_of_a_flag(visitor: Visitor) -> None:
    visitor.open("/instances/new")
    visitor.press("Create Instance", name="half", extra_args='--frobnicate "\\ud800"')
    assert visitor.answer.status_code < 500, visitor.page.text
