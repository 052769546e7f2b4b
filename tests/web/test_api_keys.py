"""Inference keys by REST: made, listed, used, deleted."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web.conftest import Instances, with_key

KEYS = "/api/v1/auth/keys"
FIELDS = {
    "id",
    "name",
    "permission_mode",
    "instance_ids",
    "created_at",
    "expires_at",
    "last_used_at",
    "requests",
    "tokens",
}


def make(client: FlaskClient, **fields: object) -> Any:
    answer = client.post(KEYS, json={"name": "notebook", **fields})
    assert answer.status_code == 201, answer.get_json()
    return answer.get_json()


def test_a_key_is_shown_once_and_opens_inference(app: Flask, client: FlaskClient) -> None:
    made = make(client)
    assert set(made) == {*FIELDS, "key"}
    assert made["permission_mode"] == "allow_all"
    assert abs(made["created_at"] - time.time()) < 60
    holder = with_key(app, made["key"])
    assert holder.get("/v1/models").get_json() == {"object": "list", "data": []}
    for path in (KEYS, f"{KEYS}/{made['id']}"):
        assert made["key"] not in client.get(path).get_data(as_text=True)


def test_an_inference_key_manages_nothing(app: Flask, client: FlaskClient) -> None:
    holder = with_key(app, make(client)["key"])
    for answer in (
        holder.get(KEYS),
        holder.post(KEYS, json={"name": "more"}),
        holder.delete(f"{KEYS}/1"),
        holder.get("/api/v1/instances"),
    ):
        assert answer.status_code == 403
        assert answer.get_json()["error"] == "permission_denied"
    assert len(client.get(KEYS).get_json()) == 1


def test_keys_are_listed_newest_first(client: FlaskClient) -> None:
    made = [make(client, name=name) for name in ("one", "two")]
    listed = client.get(KEYS).get_json()
    assert [entry["name"] for entry in listed] == ["two", "one"]
    assert all(set(entry) == FIELDS for entry in listed)
    shown = client.get(f"{KEYS}/{made[0]['id']}").get_json()
    assert shown == {name: value for name, value in made[0].items() if name != "key"}


def test_a_key_may_be_for_chosen_instances(
    app: Flask, client: FlaskClient, instances: Instances
) -> None:
    ids = {}
    for name in ("one", "two"):
        answer = instances.create(name, backend_type="llama_cpp", backend_options={"model": "/x"})
        ids[name] = answer.get_json()["id"]
    made = make(client, permission_mode="per_instance", instance_ids=[ids["two"]])
    assert made["instance_ids"] == [ids["two"]]
    permissions = client.get(f"{KEYS}/{made['id']}/permissions").get_json()
    assert permissions == [{"instance_id": ids["two"], "instance_name": "two"}]
    listed = with_key(app, made["key"]).get("/v1/models").get_json()["data"]
    assert [entry["id"] for entry in listed] == ["two"]
    everything = make(client)
    permissions = client.get(f"{KEYS}/{everything['id']}/permissions").get_json()
    assert {entry["instance_name"] for entry in permissions} == {"one", "two"}


def test_an_instance_made_anew_is_not_the_one_that_a_key_was_for(
    app: Flask, client: FlaskClient, instances: Instances
) -> None:
    options = {"backend_type": "llama_cpp", "backend_options": {"model": "/x"}}
    instance_id = instances.create("one", **options).get_json()["id"]
    made = make(client, permission_mode="per_instance", instance_ids=[instance_id])
    assert client.delete("/api/v1/instances/one").status_code == 204
    assert instances.create("one", **options).status_code == 201
    assert with_key(app, made["key"]).get("/v1/models").get_json()["data"] == []
    assert client.get(f"{KEYS}/{made['id']}/permissions").get_json() == []


def test_a_deleted_key_is_gone_and_void(app: Flask, client: FlaskClient) -> None:
    made = make(client)
    holder = with_key(app, made["key"])
    assert client.delete(f"{KEYS}/{made['id']}").status_code == 204
    assert holder.get("/v1/models").status_code == 401
    assert client.get(KEYS).get_json() == []
    for answer in (
        client.delete(f"{KEYS}/{made['id']}"),
        client.get(f"{KEYS}/{made['id']}"),
        client.get(f"{KEYS}/{made['id']}/permissions"),
    ):
        assert (answer.status_code, answer.get_json()["error"]) == (404, "key_not_found")


def test_a_key_can_be_made_to_expire(app: Flask, client: FlaskClient) -> None:
    later = int(time.time()) + 3600
    made = make(client, expires_at=later)
    assert made["expires_at"] == later
    assert with_key(app, made["key"]).get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("word", "body"),
    [
        ("name", {}),
        ("name", {"name": 5}),
        ("name", {"name": ""}),
        ("name", {"name": "x" * 101}),
        ("name", {"name": "a\nb"}),
        ("permission_mode", {"name": "n", "permission_mode": "some"}),
        ("permission_mode", {"name": "n", "permission_mode": None}),
        ("per_instance", {"name": "n", "permission_mode": "per_instance"}),
        ("the id 77", {"name": "n", "permission_mode": "per_instance", "instance_ids": [77]}),
        ("instance_ids", {"name": "n", "instance_ids": "all"}),
        ("instance_ids", {"name": "n", "instance_ids": [True]}),
        ("instance_ids", {"name": "n", "instance_ids": ["1"]}),
        ("expires_at", {"name": "n", "expires_at": "tomorrow"}),
        ("expires_at", {"name": "n", "expires_at": 5}),
        ("expires_at", {"name": "n", "expires_at": True}),
        ("expires_at", {"name": "n", "expires_at": 1e300}),
        ("scope", {"name": "n", "scope": "all"}),
    ],
)
def test_what_is_wrong_is_told_and_no_key_is_made(
    client: FlaskClient, word: str, body: dict[str, object]
) -> None:
    answer = client.post(KEYS, json=body)
    assert answer.status_code == 400
    assert answer.get_json()["error"] == "invalid_request"
    assert word in answer.get_json()["details"]
    assert client.get(KEYS).get_json() == []
