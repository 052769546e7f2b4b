"""Who is asking, and what that opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Principal:
    """Who is asking. ``key_id`` is None for management keys and where no key is required."""

    kind: Literal["management", "inference"]
    name: str
    key_id: int | None = None
    instance_ids: frozenset[int] | None = None

    @property
    def is_management(self) -> bool:
        return self.kind == "management"

    def may_use(self, instance_id: int) -> bool:
        """Whether inference on this instance is allowed; an id is never used twice."""
        return self.instance_ids is None or instance_id in self.instance_ids


MANAGEMENT = Principal("management", "management")
#: Whoever asks where ``auth.require_inference_auth`` is off.
ANYONE = Principal("inference", "anyone")
