"""The pages of instances, as a person without a script uses them."""

from __future__ import annotations

from typing import Any

import pytest

from llamactl.instances.options import Options
from llamactl.web.instance_views import instance_view
from tests.web.conftest import add_instance, until
from tests.web.visitor import Element, Visitor


def status(page: Element) -> str:
    return next(each for each in page.all("span") if "status" in (each.get("class") or "")).text


def test_without_instances_the_page_says_what_one_is(visitor: Visitor) -> None:
    page = visitor.open("/instances")
    assert "No instance yet." in page.text
    assert page.one("a", aria_current="page").text == "Instances"


def test_the_form_has_the_words_of_the_walk_through(visitor: Visitor) -> None:
    visitor.open("/instances")
    visitor.press("Add Instance")
    chosen = visitor.field("Backend type").one("option")
    assert (chosen["value"], chosen.text) == ("llama_cpp", "llama.cpp")
    assert visitor.field("Model")["name"] == "model"


def test_an_instance_is_added_started_and_stopped(visitor: Visitor, model: str) -> None:
    page = add_instance(visitor, "one", model=model)
    assert visitor.path == "/instances/one"
    assert status(page) == "stopped"
    visitor.press("Start one")
    page = until(visitor, "/instances/one", lambda page: status(page) in ("running", "failed"))
    assert status(page) == "running"
    terms = {each.text: each.within("div").one("dd").text for each in page.all("dt")}
    assert terms["Model"] == model
    assert terms["Port"].isdigit() and terms["Process"].isdigit()
    visitor.press("Stop one")
    until(visitor, "/instances/one", lambda page: status(page) == "stopped")
    page = visitor.open("/instances")
    row = page.one("table").one("tbody").one("tr")
    assert row.one("th").text == "one"
    assert status(row) == "stopped"


def test_create_and_start_does_both(visitor: Visitor, model: str) -> None:
    add_instance(visitor, "one", "Create and start", model=model)
    until(visitor, "/instances/one", lambda page: status(page) == "running")


def test_what_was_typed_becomes_the_options(visitor: Visitor, model: str, runtime: Any) -> None:
    add_instance(
        visitor,
        "one",
        model=f" {model} ",
        ctx_size="4096",
        gpu_layers="99",
        threads="2",
        parallel="3",
        aliases="small, org/name:Q4_K_M ,",
        idle_timeout="2.5",
        extra_args="--cache-type-k q8_0\nno-warmup\n\n--cache-type-v=q8_0",
        environment="CUDA_VISIBLE_DEVICES=0",
    )
    assert visitor.path == "/instances/one", visitor.page.text
    options = runtime.supervisor.get("one").options.to_json()
    backend = options["backend_options"]
    assert backend["model"] == model
    assert [backend[each] for each in ("ctx_size", "threads", "parallel")] == [4096, 2, 3]
    assert str(backend["gpu_layers"]) == "99"
    assert options["aliases"] == ["small", "org/name:Q4_K_M"]
    assert options["idle_timeout"] == 2.5
    assert options["environment"] == {"CUDA_VISIBLE_DEVICES": "0"}
    flags = {**backend, **backend.get("extra_args", {})}
    shown = {name.replace("-", "_"): value for name, value in flags.items()}
    assert (shown["cache_type_k"], shown["cache_type_v"]) == ("q8_0", "q8_0")


@pytest.mark.parametrize(
    ("field", "typed"),
    [
        ("name", "-x"),
        ("name", "new"),
        ("name", "a b"),
        ("ctx_size", "many"),
        ("ctx_size", "1e9999"),
        ("threads", "two"),
        ("idle_timeout", "-1"),
        ("max_restarts", "1.5"),
    ],
)
def test_what_is_wrong_is_told_beside_its_field_and_nothing_typed_is_lost(
    visitor: Visitor, model: str, runtime: Any, field: str, typed: str
) -> None:
    values = {"name": "one", "model": model, "group": "kept & <b>", field: typed}
    page = add_instance(visitor, values.pop("name"), **values)
    assert visitor.answer.status_code == 400, page.text
    assert page.one(id=field)["aria-invalid"] == "true"
    assert page.one(id=f"{field}-wrong").text
    for name, value in values.items():
        assert page.one(id=name)["value"] == value
    assert runtime.supervisor.instances() == []


def test_a_name_that_is_taken_is_told_beside_it(visitor: Visitor, model: str) -> None:
    add_instance(visitor, "one", model=model)
    page = add_instance(visitor, "one", model=model)
    assert visitor.answer.status_code == 409
    assert "one" in page.one(id="name-wrong").text


def test_a_wrong_field_behind_more_options_is_shown(visitor: Visitor, model: str) -> None:
    page = add_instance(visitor, "one", model=model, max_restarts="often")
    details = page.one(id="more-options")
    assert details.get("open") is not None


def test_a_box_that_was_unticked_stays_so(visitor: Visitor, model: str, runtime: Any) -> None:
    visitor.open("/instances/new")
    assert visitor.field("Start with the first request").get("checked") is not None
    visitor.press("Create Instance", name="one", model=model, on_demand_start=[], auto_restart=[])
    options = runtime.supervisor.get("one").options.to_json()
    assert (options["on_demand_start"], options["auto_restart"]) == (False, False)


def test_editing_changes_what_was_typed_and_keeps_the_rest(
    visitor: Visitor, model: str, runtime: Any
) -> None:
    add_instance(
        visitor, "one", model=model, ctx_size="4096", environment="TOKEN=secret-value\nA=1"
    )
    visitor.press("Edit one")
    assert visitor.field("Context size")["value"] == "4096"
    assert "secret-value" not in visitor.answer.text
    visitor.press("Save", ctx_size="", threads="2", environment="TOKEN=***\nA=2")
    assert visitor.path == "/instances/one"
    options = runtime.supervisor.get("one").options.to_json()
    assert options["backend_options"].get("ctx_size") is None
    assert options["backend_options"]["threads"] == 2
    assert options["environment"] == {"TOKEN": "secret-value", "A": "2"}


def test_an_edit_that_is_refused_is_told_beside_its_field_and_changes_nothing(
    visitor: Visitor, model: str, runtime: Any
) -> None:
    add_instance(visitor, "one", model=model, ctx_size="4096")
    before = runtime.supervisor.get("one").options
    visitor.press("Edit one")
    page = visitor.press("Save", ctx_size="many", group="kept")
    assert visitor.answer.status_code == 400
    assert page.one(id="ctx_size")["aria-invalid"] == "true"
    assert page.one(id="group")["value"] == "kept"
    assert runtime.supervisor.get("one").options == before


def test_an_estimate_while_editing_saves_nothing(
    visitor: Visitor, model: str, runtime: Any
) -> None:
    add_instance(visitor, "one", model=model)
    before = runtime.supervisor.get("one").options
    visitor.press("Edit one")
    page = visitor.press("Estimate", ctx_size="2048")
    assert page.one(id="ctx_size")["value"] == "2048"
    assert runtime.supervisor.get("one").options == before


def test_a_button_of_the_list_leads_back_to_the_list(visitor: Visitor, model: str) -> None:
    add_instance(visitor, "one", model=model)
    visitor.open("/instances")
    visitor.press("Start one")
    assert visitor.path == "/instances"
    until(visitor, "/instances", lambda page: "1 running" in page.text)


def test_an_instance_that_runs_is_stopped_before_it_is_deleted(
    visitor: Visitor, model: str
) -> None:
    add_instance(visitor, "one", "Create and start", model=model)
    page = visitor.press("Delete one")
    assert "can be deleted once it is stopped" in page.text
    assert "Delete instance" not in visitor.buttons()
    visitor.press("Stop it")
    assert visitor.path == "/instances/one"
    until(visitor, "/instances/one", lambda page: status(page) == "stopped")
    visitor.press("Delete one")
    visitor.press("Delete instance")
    assert "No instance yet." in visitor.page.text


def test_an_instance_is_restarted_by_its_button(visitor: Visitor, model: str, runtime: Any) -> None:
    add_instance(visitor, "one", "Create and start", model=model)
    until(visitor, "/instances/one", lambda page: status(page) == "running")
    first = runtime.supervisor.get("one").pid
    visitor.press("Restart one")
    assert visitor.path == "/instances/one"
    until(
        visitor,
        "/instances/one",
        lambda page: (
            status(page) == "running" and runtime.supervisor.get("one").pid not in (None, first)
        ),
    )


def test_the_page_shows_no_value_of_a_variable(visitor: Visitor, model: str) -> None:
    add_instance(visitor, "one", model=model, environment="TOKEN=secret-value")
    assert "TOKEN" in visitor.page.text
    assert "secret-value" not in visitor.answer.text


def test_delete_asks_first_and_then_deletes(visitor: Visitor, model: str, runtime: Any) -> None:
    add_instance(visitor, "one", model=model)
    visitor.press("Delete one")
    assert runtime.supervisor.get("one").name == "one"
    visitor.press("Delete instance")
    assert visitor.path == "/instances"
    assert "No instance yet." in visitor.page.text


def test_an_instance_that_was_started_meanwhile_is_not_deleted(
    visitor: Visitor, model: str, runtime: Any
) -> None:
    add_instance(visitor, "one", model=model)
    visitor.press("Delete one")
    runtime.supervisor.start_instance("one")
    page = visitor.press("Delete instance")
    assert visitor.answer.status_code == 409
    assert page.one(id="alerts").text.endswith("Stop it first.")
    assert "Stop it" in visitor.buttons()


def test_the_log_shows_the_last_lines_plain(visitor: Visitor, model: str) -> None:
    said = "'\x1b[31mred\x1b[0m <b>&amp;</b>'"
    environment = f"FAKE_LLAMA=--fake-print {said}"
    add_instance(visitor, "one", "Create and start", model=model, environment=environment)
    page = until(visitor, "/instances/one", lambda page: "red" in page.one(id="log").text)
    assert "red <b>&amp;</b>" in page.one(id="log").text
    whole = visitor.client.get("/instances/one/log")
    assert whole.mimetype == "text/plain"
    assert b"red" in whole.data


def test_a_failed_start_is_explained_on_the_page(visitor: Visitor, model: str) -> None:
    environment = "FAKE_LLAMA=--fake-fail 'error loading model: out of luck'"
    add_instance(
        visitor, "one", "Create and start", model=model, environment=environment, max_restarts="0"
    )
    page = until(visitor, "/instances/one", lambda page: status(page) == "failed")
    assert "out of luck" in page.one(id="status").one(class_="alert bad").text
    assert "Start one" in visitor.buttons()


def test_the_page_says_how_to_call_the_instance(visitor: Visitor, model: str) -> None:
    page = add_instance(visitor, "one", model=model)
    curl, python = (each.text for each in page.all("pre", class_="code") if "YOUR_KEY" in each.text)
    assert "curl http://localhost/v1/chat/completions" in curl and '"model": "one"' in curl
    assert 'base_url="http://localhost/v1"' in python and 'model="one"' in python


@pytest.mark.parametrize("name", ["nobody", "%2e%2e", "a%0A", "x" * 51, "%3Cscript%3E"])
def test_an_instance_that_does_not_exist_is_a_page_that_says_so(
    visitor: Visitor, name: str
) -> None:
    visitor.open(f"/instances/{name}")
    assert visitor.answer.status_code == 404
    for suffix in ("/edit", "/delete", "/log"):
        assert visitor.client.get(f"/instances/{name}{suffix}").status_code == 404


def test_the_page_shows_what_a_running_instance_takes_and_does(
    visitor: Visitor, model: str
) -> None:
    add_instance(visitor, "one", "Create and start", model=model)
    page = until(visitor, "/instances/one", lambda page: status(page) == "running")
    terms = {each.text: each.within("div").one("dd").text for each in page.all("dt")}
    assert terms["Memory"].endswith("B") and terms["In flight"] == "0"
    assert {"Requests", "Tokens per second", "Crashes in a row", "Health"} <= terms.keys()
    assert f"--port {terms['Port']}" in page.text
    row = visitor.open("/instances").one("table").one("tbody").one("tr")
    assert row.one("td", data_label="Memory").text.endswith("B")


@pytest.mark.parametrize("settings", [{"instances.group_limits": {"small": 2}}])
def test_the_list_shows_groups_and_counts(visitor: Visitor, model: str, runtime: Any) -> None:
    for number in range(60):
        group = {"group": "small"} if number % 2 else {}
        runtime.supervisor.create(
            f"i{number}",
            Options.from_json({"backend_options": {"model": model}, **group}, runtime.config),
        )
    page = visitor.open("/instances")
    assert "60 stopped" in page.text
    assert page.one("tr", class_="group").text == "Group small 0 of 30 up, 2 may run at a time"
    assert len([each for each in page.all("tr") if each.get("id")]) == 60


@pytest.mark.parametrize(
    ("health", "label"), [("wedged", "wedged"), ("unresponsive", "no answer"), ("ok", "running")]
)
def test_a_running_instance_that_does_not_work_is_called_so(health: str, label: str) -> None:
    snapshot = {
        "id": 1,
        "name": "one",
        "status": "running",
        "health": health,
        "created": 0,
        "options": {},
        "error": "No slot makes progress.",
    }
    view = instance_view(snapshot, 0.0)
    assert view.label == label
    assert [verb for verb, _, _ in view.buttons] == ["restart", "stop"]


def test_the_log_goes_on_as_events_with_what_was_written_first(
    visitor: Visitor, model: str, runtime: Any
) -> None:
    environment = "FAKE_LLAMA=--fake-print '\x1b[31mred\x1b[0m'"
    page = add_instance(visitor, "one", "Create and start", model=model, environment=environment)
    until(visitor, "/instances/one", lambda page: "red" in page.one(id="log").text)
    address = next(page.one(id="log").all(class_="log"))["data-follow"]
    answer = visitor.client.get(address, buffered=False)
    assert answer.mimetype == "text/event-stream"
    said = b""
    for piece in answer.response:
        said += piece if isinstance(piece, bytes) else piece.encode()
        if b"red" in said:
            break
    answer.close()
    assert b"\x1b" not in said and b"llamactl starts" in said


def test_the_models_of_a_router_are_on_its_page_with_their_buttons(
    visitor: Visitor, runtime: Any
) -> None:
    environment = "FAKE_LLAMA=--fake-models org/a:Q4_K_M,b --fake-loaded b"
    page = add_instance(visitor, "one", environment=environment)
    assert "once it runs" in page.one(id="models").text
    assert '"model": "one/ORG/NAME:TAG"' in page.text
    visitor.press("Start one")
    until(visitor, "/instances/one", lambda page: "org/a:Q4_K_M" in page.one(id="models").text)
    for button, target in (("Load org/a:Q4_K_M", "load"), ("Unload b", "unload")):
        visitor.press(button)
        assert visitor.answer.status_code == 200 and visitor.path == "/instances/one"
        assert f"POST /models/{target}".encode() in runtime.supervisor.logs("one")


def test_a_router_that_is_stopped_meanwhile_says_so(visitor: Visitor) -> None:
    page = add_instance(visitor, "one")
    token = next(page.all(name="csrf_token"))["value"]
    answer = visitor.client.post(
        "/instances/one/models/load", data={"csrf_token": token, "model": "a"}
    )
    assert answer.status_code == 503 and "instance_not_running" in answer.text
    nameless = visitor.client.post("/instances/one/models/load", data={"csrf_token": token})
    assert nameless.status_code == 400 and "No model was named" in nameless.text


# With a script


def test_parts_of_the_page_come_alone(visitor: Visitor, model: str) -> None:
    page = add_instance(visitor, "one", model=model)
    address = page.one(id="status")["hx-get"]
    assert visitor.client.get(address).status_code == 204
    fresh = visitor.client.get(address.partition("&seen=")[0])
    assert fresh.text.startswith('<div id="status"')
