"""Instances as files, by the pages: exported, and imported under their names."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.web.conftest import add_instance
from tests.web.visitor import Visitor


def test_an_export_is_what_an_import_takes(visitor: Visitor, model: str, runtime: Any) -> None:
    add_instance(visitor, "one", model=model, ctx_size="4096", group="small", environment="PLAIN=1")
    add_instance(visitor, "two", model=model)
    one = visitor.client.get("/instances/one/export")
    every = visitor.client.get("/instances.json")
    assert one.headers["Content-Disposition"] == 'attachment; filename="one.json"'
    before = {each.name: each.options for each in runtime.supervisor.instances()}
    for name in ("one", "two"):
        runtime.supervisor.delete(name)
    visitor.open("/instances")
    visitor.press("Import")
    visitor.press("Import", json=one.text, name="one")
    assert visitor.path == "/instances/one", visitor.page.text
    runtime.supervisor.delete("one")
    visitor.open("/instances/new/import")
    visitor.press("Import", json=every.text)
    assert visitor.path == "/instances"
    assert {each.name: each.options for each in runtime.supervisor.instances()} == before


def test_a_file_is_imported_under_its_own_name(visitor: Visitor, model: str, runtime: Any) -> None:
    add_instance(visitor, "one", model=model)
    exported = visitor.client.get("/instances/one/export").data
    page = visitor.open("/instances/new/import")
    token = next(page.all(name="csrf_token"))["value"]
    file = (io.BytesIO(exported), "copy.json")
    answer = visitor.client.post(
        "/instances/new/import", data={"csrf_token": token, "file": file, "json": "", "name": ""}
    )
    assert answer.headers["Location"] == "/instances/copy"
    assert runtime.supervisor.get("copy").options == runtime.supervisor.get("one").options


def test_an_import_says_what_is_wrong_and_makes_nothing(
    visitor: Visitor, model: str, runtime: Any
) -> None:
    good = {"backend_options": {"model": model}}
    wrong = json.dumps({"a": good, "b": {"backend_options": {"ctx_size": "many"}}})
    visitor.open("/instances/new/import")
    page = visitor.press("Import", json=wrong)
    assert visitor.answer.status_code == 400
    assert "b: backend_options.ctx_size" in page.one(id="json-wrong").text
    assert page.one(id="json").raw_text.strip() == wrong
    page = visitor.press("Import", json=json.dumps(good))
    assert "name" in page.one(id="name-wrong").text
    page = visitor.press("Import", json="{", name="")
    assert "no JSON" in page.one(id="json-wrong").text
    assert runtime.supervisor.instances() == []


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a": {"environment": {"WORD": "\\ud800"}}}',
        '{"a": {"idle_timeout": NaN}}',
        '{"a": {"idle_timeout": 1e999}}',
        '{"a": {"idle_timeout": ' + "9" * 5000 + "}}",
    ],
)
def test_an_import_of_what_only_looks_like_json_is_refused(
    visitor: Visitor, runtime: Any, text: str
) -> None:
    visitor.open("/instances/new/import")
    page = visitor.press("Import", json=text)
    assert visitor.answer.status_code == 400
    assert page.one(id="json-wrong").text
    assert runtime.supervisor.instances() == []


def test_an_import_of_a_name_that_is_taken_says_what_to_do(
    visitor: Visitor, model: str, runtime: Any
) -> None:
    add_instance(visitor, "one", model=model)
    text = json.dumps({"one": {"backend_options": {"model": model}, "group": "new"}})
    visitor.open("/instances/new/import")
    page = visitor.press("Import", json=text)
    assert visitor.answer.status_code == 409
    assert "Tick the box below" in page.one(id="name-wrong").text
    visitor.press("Import", json=text, replace="on")
    assert visitor.path == "/instances/one", visitor.page.text
    assert runtime.supervisor.get("one").options.group == "new"
