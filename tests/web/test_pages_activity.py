"""The activity page."""

from __future__ import annotations

from pathlib import Path

from flask.testing import FlaskClient

from tests.web.conftest import Instances
from tests.web.visitor import Visitor


def test_the_last_requests_are_listed_without_what_was_said(
    anonymous: FlaskClient,
    client: FlaskClient,
    instances: Instances,
    management_key: str,
    tmp_path: Path,
) -> None:
    visitor = Visitor(anonymous)
    visitor.log_in(management_key)
    assert "No request yet" in visitor.open("/activity").text
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    options = {"backend_type": "llama_cpp", "backend_options": {"model": str(model)}}
    assert instances.create("chat", **options).status_code == 201
    body = {"model": "chat", "max_tokens": 2, "messages": [{"role": "user", "content": "secret"}]}
    assert client.post("/v1/chat/completions", json=body).get_json()["object"] == "chat.completion"
    page = visitor.open("/activity")
    (row,) = [each for each in page.all("tr") if "chat/completions" in each.text]
    cells = {cell.get("data-label"): cell.text for cell in row.all("td")}
    assert cells["Status"] == "200"
    assert cells["Key"] == "management"
    assert (cells["Read"], cells["Written"]) == ("3", "2")
    assert "secret" not in page.text
    assert "word0" not in page.text


def test_the_list_is_live_with_a_script_and_loads_again_without(
    anonymous: FlaskClient, management_key: str
) -> None:
    visitor = Visitor(anonymous)
    visitor.log_in(management_key)
    page = visitor.open("/activity")
    part = page.one(id="requests")
    assert "/activity?part=requests" in (part.get("hx-get") or "")
    assert anonymous.get(str(part.get("hx-get"))).status_code == 204
