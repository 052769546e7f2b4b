"""Inference keys: made, listed, deleted. A key's secret is in the answer that makes it, only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from flask import Blueprint, Response

from llamactl.access.records import MAXIMUM_NAME, PERMISSION_MODES, KeyRecord, PermissionMode
from llamactl.errors import InvalidRequest
from llamactl.web import services
from llamactl.web.answers import empty_answer, json_answer
from llamactl.web.api.routing import route
from llamactl.web.auditing import note
from llamactl.web.jsonbody import json_body, kind_of

blueprint = Blueprint("keys", __name__)

NONE = "No such key"
FORM: Mapping[str, object] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": MAXIMUM_NAME, "description": "For people."},
        "permission_mode": {
            "enum": list(PERMISSION_MODES),
            "default": "allow_all",
            "description": "Whether the key may use every instance, or those in instance_ids.",
        },
        "instance_ids": {
            "type": ["array", "null"],
            "items": {"type": "integer"},
            "description": "The instances that the key may use, with per_instance.",
        },
        "expires_at": {
            "type": ["number", "null"],
            "description": "A time in unix seconds; without it the key never expires.",
        },
    },
    "required": ["name"],
    "additionalProperties": False,
}
FIELDS = ("name", "permission_mode", "instance_ids", "expires_at")


class KeyJson(TypedDict):
    """An inference key without its secret. Times are unix seconds."""

    id: int
    name: str
    permission_mode: PermissionMode
    instance_ids: list[int]
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    requests: int
    tokens: int


class MadeKeyJson(KeyJson):
    """A key that was made just now, with `key`, which is shown only here."""

    key: str


class PermissionJson(TypedDict):
    """An instance that a key may use."""

    instance_id: int
    instance_name: str


@route(
    blueprint,
    "POST",
    "/auth/keys",
    takes=FORM,
    gives=MadeKeyJson,
    answers={201: "The key, shown once", 400: "A wrong field"},
)
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
    made: MadeKeyJson = {**key_json(record), "key": secret.reveal()}
    return json_answer(made, 201)


@route(blueprint, "GET", "/auth/keys", gives=list[KeyJson], answers={200: "All keys, newest first"})
def list_keys() -> Response:
    """Show all keys, without their secrets."""
    return json_answer([key_json(record) for record in services().keys.list()])


@route(
    blueprint, "GET", "/auth/keys/<int:key_id>", gives=KeyJson, answers={200: "The key", 404: NONE}
)
def show_key(key_id: int) -> Response:
    """Show one key, without its secret."""
    return json_answer(key_json(services().keys.get(key_id)))


@route(blueprint, "DELETE", "/auth/keys/<int:key_id>", answers={204: "Void", 404: NONE})
def delete_key(key_id: int) -> Response:
    """Void a key for ever; streams that run under it end."""
    services().keys.delete(key_id)
    return empty_answer()


@route(
    blueprint,
    "GET",
    "/auth/keys/<int:key_id>/permissions",
    gives=list[PermissionJson],
    answers={200: "Instances", 404: NONE},
)
def show_permissions(key_id: int) -> Response:
    """Show the instances that a key may use; those that are gone are left out."""
    record = services().keys.get(key_id)
    chosen = record.permission_mode == "per_instance"
    allowed: list[PermissionJson] = [
        {"instance_id": instance.id, "instance_name": instance.name}
        for instance in services().supervisor.instances()
        if not chosen or instance.id in record.instance_ids
    ]
    return json_answer(allowed)


def key_json(record: KeyRecord) -> KeyJson:
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
