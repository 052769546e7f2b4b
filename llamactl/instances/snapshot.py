"""What the others see of an instance: a frozen picture, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from llamactl.errors import LlamactlError, sentence_start
from llamactl.instances.figures import NO_FIGURES, Figures
from llamactl.instances.masking import masked
from llamactl.instances.options import Options, OptionsJson
from llamactl.instances.states import Status


class InstanceJson(TypedDict):
    """An instance. Times are unix seconds; what is not known, or is of no process, is null.

    `health` is `loading`, `ok`, `busy`, `wedged` or `unresponsive`. `memory_bytes` is the resident
    memory of its processes, `tokens_per_second` the pace of its running answers together.
    """

    id: int
    name: str
    status: Status
    created: int
    options: OptionsJson
    port: int | None
    pid: int | None
    health: str | None
    restarts: int
    exit_code: int | None
    error: str | None
    in_flight: int
    requests: int
    last_used: int | None
    memory_bytes: int | None
    tokens_per_second: float | None


class SavedInstanceJson(InstanceJson):
    """An instance that was just saved.

    `warnings` are sentences about what a start would fail or be held up by as things are now.
    """

    warnings: list[str]


@dataclass(frozen=True)
class InstanceSnapshot:
    """An instance at one moment. Times are unix seconds.

    ``requests`` counts those that it was given since the server started.
    ``health`` is ``loading``, ``ok``, ``busy`` (it serves and answers nothing else), ``wedged`` (it
    serves and gets no further) or ``unresponsive``, and None while there is no process.
    """

    id: int
    name: str
    status: Status
    created: float
    options: Options
    port: int | None
    pid: int | None
    health: str | None
    restarts: int
    exit_code: int | None
    error: str | None
    in_flight: int
    requests: int
    last_used: float | None


def sentences(message: str, hint: str) -> str:
    """A reason, which is told in the middle of a sentence elsewhere, and what to do about it."""
    return LlamactlError(sentence_start(message), hint=hint).details


def instance_json(snapshot: InstanceSnapshot, figures: Figures = NO_FIGURES) -> InstanceJson:
    """The JSON form of an instance; ``figures`` are what ``Supervisor.figures`` tells of it.

    Variables that look like secrets are masked.
    """
    options = snapshot.options.to_json()
    options["environment"] = masked(options["environment"])
    return {
        "id": snapshot.id,
        "name": snapshot.name,
        "status": snapshot.status,
        "created": int(snapshot.created),
        "options": options,
        "port": snapshot.port,
        "pid": snapshot.pid,
        "health": snapshot.health,
        "restarts": snapshot.restarts,
        "exit_code": snapshot.exit_code,
        "error": snapshot.error,
        "in_flight": snapshot.in_flight,
        "requests": snapshot.requests,
        "last_used": None if snapshot.last_used is None else int(snapshot.last_used),
        "memory_bytes": figures.memory_bytes,
        "tokens_per_second": figures.tokens_per_second,
    }
