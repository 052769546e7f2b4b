"""Inference keys: made, listed, deleted. A key's secret is in the answer that makes it, only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response

from llamactl.access.records import KeyRecord
from llamactl.errors import InvalidRequest
from llamactl.web import services
from llamactl.web.answers import empty_answer, json_answer
from llamactl.web.api.routing import route
from llamactl.web.auditing import note
from llamactl.web.jsonbody import json_body, kind_of

blueprint = Blueprint("keys", __name__)

NONE = "No such key"
FIELDS = ("name", "permission_mode", "instance_ids", "expires_at")


@route(blueprint, "POST", "/auth/keys", answers={201: "The key, shown once", 400: "A wrong field"})
def create_key() -> Response:
    """Make an inference key."""
    body = json_body()
    for field in body:
        if field not in FIELDS:
            known = f"Known here: {', '.join(FIELDS)}."
            raise InvalidRequest(f"{field[:100]!r} is not a field", hint=known, field=field)
    record, secret = services().keys.create(
        _text(body, "name", None),
        _text(body, "permission_mode", "allow_all"),
        _instance_ids(body),
        _expiry(body),
    )
    note(f"key {record.id}")
    return json_answer({**key_json(record), "key": secret.reveal()}, 201)


@route(blueprint, "GET", "/auth/keys", answers={200: "All keys, newest first"})
def list_keys() -> Response:
    """Show all keys, without their secrets."""
    return json_answer([key_json(record) for record in services().keys.list()])


@route(blueprint, "GET", "/auth/keys/<int:key_id>", answers={200: "The key", 404: NONE})
def show_key(key_id: int) -> Response:
    """Show one key, without its secret."""
    return json_answer(key_json(services().keys.get(key_id)))


@route(blueprint, "DELETE", "/auth/keys/<int:key_id>", answers={204: "Void", 404: NONE})
def delete_key(key_id: int) -> Response:
    """Void a key for ever; streams that run under it end."""
    services().keys.delete(key_id)
    return empty_answer()


@route(
    blueprint, "GET", "/auth/keys/<int:key_id>/permissions", answers={200: "Instances", 404: NONE}
)
def show_permissions(key_id: int) -> Response:
    """Show the instances that a key may use; those that are gone are left out."""
    record = services().keys.get(key_id)
    chosen = record.permission_mode == "per_instance"
    return json_answer(
        [
            {"instance_id": instance.id, "instance_name": instance.name}
            for instance in services().supervisor.instances()
            if not chosen or instance.id in record.instance_ids
        ]
    )


def key_json(record: KeyRecord) -> dict[str, object]:
    """A key as the API shows it. Times are unix seconds."""
    return {
        "id": record.id,
        "name": record.name,
        "permission_mode": record.permission_mode,
        "instance_ids": list(record.instance_ids),
        "created_at": int(record.created_at),
        "expires_at": None if record.expires_at is None else int(record.expires_at),
        "last_used_at": None if record.last_used_at is None else int(record.last_used_at),
        "requests": record.requests,
        "tokens": record.tokens,
    }


def _text(body: Mapping[str, object], field: str, default: str | None) -> str:
    value = body.get(field, default)
    if not isinstance(value, str):
        said = "is missing" if field not in body else f"must be a text, not {kind_of(value)}"
        raise InvalidRequest(f"{field} {said}", field=field)
    return value


def _instance_ids(body: Mapping[str, object]) -> list[int]:
    value: Any = body.get("instance_ids")
    if value is None:
        return []
    numbers = isinstance(value, list) and all(type(each) is int for each in value)
    if not numbers:
        raise InvalidRequest("instance_ids must be a list of numbers", field="instance_ids")
    known = {instance.id for instance in services().supervisor.instances()}
    for each in value:
        if each not in known:
            raise InvalidRequest(f"There is no instance with the id {each}", field="instance_ids")
    return list(value)


def _expiry(body: Mapping[str, object]) -> float | None:
    value = body.get("expires_at")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(
            f"expires_at must be a time in unix seconds, not {kind_of(value)}", field="expires_at"
        )
    return float(value)
