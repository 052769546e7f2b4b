"""The pages of keys and of the system."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from llamactl.config import Config
from llamactl.errors import InvalidKey
from tests.web.visitor import Visitor


def test_a_key_is_shown_once_and_opens_inference(visitor: Visitor, runtime: Any) -> None:
    visitor.open("/keys")
    page = visitor.press("Make key", name="open-webui")
    key = page.one(id="new-key").text
    assert runtime.keys.authenticate(key).name == "open-webui"
    page = visitor.open("/keys")
    assert key not in visitor.answer.text
    row = page.one("table").one("tbody").one("tr")
    assert row.one(class_="name").text == "open-webui"
    assert row.one("td", data_label="May use").text == "all instances"
    assert row.one("td", data_label="Expires").text == "never"


def test_the_page_with_a_made_key_loaded_again_makes_no_second_one(
    visitor: Visitor, runtime: Any
) -> None:
    visitor.open("/keys")
    sent = {"name": "laptop", "permission_mode": "allow_all"}
    form = visitor.button("Make key").within("form")
    for name in ("csrf_token", "newest"):
        sent[name] = form.one(name=name)["value"]
    assert visitor.client.post("/keys", data=sent).status_code == 200
    again = visitor.client.post("/keys", data=sent)
    assert again.status_code == 400 and "has made its key already" in again.text
    assert len(runtime.keys.list()) == 1
    visitor.open("/keys")
    visitor.press("Make key", name="laptop")
    assert len(runtime.keys.list()) == 2, "a form that was shown anew may make one of that name"


def test_a_key_for_chosen_instances_names_them(visitor: Visitor, runtime: Any) -> None:
    from llamactl.instances.options import Options

    options = Options.from_json({"backend_type": "llama_cpp"}, runtime.config)
    ids = {name: runtime.supervisor.create(name, options).id for name in ("one", "two")}
    visitor.open("/keys")
    visitor.press(
        "Make key", name="one only", permission_mode="per_instance", instance_ids=[str(ids["one"])]
    )
    (record,) = runtime.keys.list()
    assert record.instance_ids == (ids["one"],)
    row = visitor.page.one("table").one("tbody").one("tr")
    assert row.one("td", data_label="May use").text == "one"
    runtime.supervisor.delete("one")
    row = visitor.open("/keys").one("table").one("tbody").one("tr")
    assert row.one("td", data_label="May use").text == "1 that no longer exist"


def test_a_key_lasts_until_the_end_of_its_last_day(visitor: Visitor, runtime: Any) -> None:
    tomorrow = (datetime.now().astimezone() + timedelta(days=1)).strftime("%Y-%m-%d")
    visitor.open("/keys")
    visitor.press("Make key", name="short", expires_at=tomorrow)
    (record,) = runtime.keys.list()
    assert 86_400 <= record.expires_at - time.time() <= 3 * 86_400


@pytest.mark.parametrize(
    ("typed", "wrong"),
    [
        ({"name": ""}, "name-wrong"),
        ({"name": "x" * 101}, "name-wrong"),
        ({"name": "a", "expires_at": "soon"}, "expires_at-wrong"),
        ({"name": "a", "expires_at": "2001-01-01"}, "expires_at-wrong"),
        ({"name": "a", "expires_at": "9999-12-31"}, "expires_at-wrong"),
    ],
)
def test_what_is_wrong_is_told_beside_its_field(
    visitor: Visitor, runtime: Any, typed: dict[str, str], wrong: str
) -> None:
    visitor.open("/keys")
    page = visitor.press("Make key", **typed)
    assert visitor.answer.status_code == 400
    assert page.one(id=wrong).text
    for name, value in typed.items():
        assert page.one(id=name)["value"] == value
    assert runtime.keys.list() == []


def test_ticked_instances_under_a_key_for_all_are_questioned(
    visitor: Visitor, runtime: Any
) -> None:
    from llamactl.instances.options import Options

    options = Options.from_json({"backend_type": "llama_cpp"}, runtime.config)
    one = runtime.supervisor.create("one", options).id
    visitor.open("/keys")
    visitor.press("Make key", name="a", permission_mode="allow_all", instance_ids=[str(one)])
    assert visitor.answer.status_code == 400
    assert "Only these" in visitor.page.text
    assert runtime.keys.list() == []


def test_revoking_asks_first_and_is_for_ever(
    visitor: Visitor, runtime: Any, inference_key: str
) -> None:
    visitor.open("/keys")
    visitor.press("Revoke tests")
    assert runtime.keys.authenticate(inference_key)
    visitor.press("Revoke key")
    assert "No inference key yet." in visitor.page.text
    with pytest.raises(InvalidKey):
        runtime.keys.authenticate(inference_key)


def test_the_system_page_shows_every_setting_and_no_secret(
    visitor: Visitor, web_config: Config, management_key: str
) -> None:
    page = visitor.open("/system")
    assert management_key not in visitor.answer.text
    for what in (web_config.data_dir, web_config.llama_cpp.cache_dir, web_config.llama_cpp.hub_dir):
        assert str(what) in page.text
    assert "instances.default_idle_timeout" in page.text


def test_a_backend_that_warns_is_loud_on_the_pages(
    visitor: Visitor, runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    warning = "A GPU is here, but the embedded llama.cpp runs on the CPU."
    found = dataclasses.replace(runtime.supervisor.backend(), warning=warning)
    monkeypatch.setattr(runtime.supervisor, "backend", lambda: found)
    for path in ("/system", "/instances", "/instances/new"):
        assert visitor.open(path).one(class_="alert warn", role="note").text == warning
