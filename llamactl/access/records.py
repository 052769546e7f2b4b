"""Inference keys as they can be shown, and what a new one may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llamactl.errors import InvalidRequest

PermissionMode = Literal["allow_all", "per_instance"]
PERMISSION_MODES: tuple[PermissionMode, ...] = ("allow_all", "per_instance")
MAXIMUM_NAME = 100


@dataclass(frozen=True)
class KeyRecord:
    """An inference key as it can be shown: everything but its secret. Times are unix seconds."""

    id: int
    public_id: str
    name: str
    permission_mode: PermissionMode
    instance_ids: tuple[int, ...]
    created_at: float
    expires_at: float | None
    last_used_at: float | None
    requests: int
    tokens: int


def checked(name: str, mode: str, instance_ids: Sequence[int]) -> PermissionMode:
    """``mode``, where all three can be a key's. Raises ``InvalidRequest`` that names the field."""
    if not 0 < len(name) <= MAXIMUM_NAME or not name.isprintable():
        raise InvalidRequest(
            f"name must be a text of 1 to {MAXIMUM_NAME} printable characters", field="name"
        )
    for known in PERMISSION_MODES:
        if known == mode:
            if mode == "per_instance" and not instance_ids:
                raise InvalidRequest(
                    "per_instance needs the instances that the key may use", field="instance_ids"
                )
            return known
    raise InvalidRequest(
        "permission_mode must be allow_all or per_instance", field="permission_mode"
    )
