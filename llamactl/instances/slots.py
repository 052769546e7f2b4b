"""What ``/slots`` of a llama-server says about how far it is. Pure.

Each slot that works has ``is_processing``, ``id_task``, ``n_prompt_tokens_processed`` and, in
``next_token``, ``n_decoded``; other builds have had that as one object instead of a list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Slots:
    """``working`` is, by slot and task, the tokens that were read of the prompt and written."""

    working: Mapping[tuple[Any, Any], tuple[int, int]]

    def written_since(self, before: Slots) -> int:
        """Tokens that the present tasks have written since ``before``."""
        return sum(
            max(0, written - before.working.get(task, (0, 0))[1])
            for task, (_, written) in self.working.items()
        )


def read_slots(body: bytes) -> Slots | None:
    """The slots that an answer tells of; None if it is no list of slots."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, list) or not all(isinstance(each, dict) for each in told):
        return None
    return Slots(
        {
            (_name(slot, "id"), _name(slot, "id_task")): (
                _count(slot.get("n_prompt_tokens_processed")),
                sum(_count(token.get("n_decoded")) for token in _tokens(slot)),
            )
            for slot in told
            if slot.get("is_processing")
        }
    )


def _tokens(slot: dict[str, Any]) -> Iterator[dict[str, Any]]:
    tokens = slot.get("next_token")
    for token in tokens if isinstance(tokens, list) else [tokens]:
        if isinstance(token, dict):
            yield token


def _name(slot: dict[str, Any], field: str) -> object:
    value = slot.get(field)
    return value if isinstance(value, int) else None


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
