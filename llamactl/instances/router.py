"""What a router says of the models that it offers. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RouterModel:
    """A model that a router offers. ``status`` is llama.cpp's word, empty where it says none.

    ``failed``: its last load did not come to its end.
    """

    name: str
    status: str
    failed: bool


def read_models(body: bytes) -> tuple[RouterModel, ...]:
    """The models in the answer to ``/models``; without what is no model there, or has no name that
    can be shown."""
    try:
        listed = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    entries = listed.get("data") if isinstance(listed, dict) else None
    models = map(_model, entries if isinstance(entries, list) else ())
    return tuple(model for model in models if model is not None)


def _model(entry: Any) -> RouterModel | None:
    name = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name or not name.isprintable():
        return None
    told = entry.get("status")
    status = told if isinstance(told, dict) else {}
    return RouterModel(name, str(status.get("value") or ""), bool(status.get("failed")))
