"""Who is asking, and what that opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Principal:
    """Who is asking. ``key_id`` is None for management keys and where no key is required.

    ``mark``: a few hex digits that tell a management key from another and say nothing else of it.
    """

    kind: Literal["management", "inference"]
    name: str
    key_id: int | None = None
    instance_ids: frozenset[int] | None = None
    mark: str = ""

    @property
    def is_management(self) -> bool:
        return self.kind == "management"

    def may_use(self, instance_id: int) -> bool:
        """Whether inference on this instance is allowed; an id is never used twice."""
        return self.instance_ids is None or instance_id in self.instance_ids

    @property
    def label(self) -> str:
        """Who it is, for the audit: ``management key 3f9a1c``, ``key 5 (lab)``, ``anyone``."""
        if self.key_id is not None:
            return f"key {self.key_id} ({self.name})"
        return f"management key {self.mark}" if self.mark else self.name


def management(mark: str) -> Principal:
    """The holder of the management key with this mark."""
    return Principal("management", "management", mark=mark)


#: Whoever asks where ``auth.require_inference_auth`` is off.
ANYONE = Principal("inference", "anyone")
