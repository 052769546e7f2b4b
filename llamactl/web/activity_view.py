"""What the activity page shows: the last requests and what they cost, never what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from llamactl.gateway.activity import Entry
from llamactl.web.texts import duration_text, moment_html

#: What went wrong, in words; a code that is not here is shown with its underscores as spaces.
RESULTS = {
    "": ("running", "busy"),
    "client_gone": ("client left", "warn"),
    "too_many_requests": ("refused: busy", "bad"),
    "cut_short": ("broke off", "warn"),
}


@dataclass(frozen=True)
class RequestView:
    """One request; what is not known is a dash. ``label`` and ``tone`` tell how it ended."""

    came: str
    model: str
    key: str
    path: str
    label: str
    tone: str
    prompt_tokens: str
    generated_tokens: str
    speed: str
    first_byte: str
    duration: str
    by_nginx: bool


@dataclass(frozen=True)
class ActivityView:
    requests: tuple[RequestView, ...]

    @property
    def moving(self) -> bool:
        """Whether something runs."""
        return any(request.tone == "busy" for request in self.requests)


def activity_view(entries: Sequence[Entry]) -> ActivityView:
    """The requests in the order in which they are given."""
    return ActivityView(tuple(map(_request, entries)))


class ActivityEntryJson(TypedDict):
    """One inference request. Times are seconds, `came_at` unix seconds; unknown is null.

    `status` is `running`, the HTTP status, or the code of what went wrong.
    """

    came_at: float
    instance: str | None
    key: str
    path: str | None
    status: str
    prompt_tokens: int | None
    generated_tokens: int | None
    tokens_per_second: float | None
    first_byte_seconds: float | None
    seconds: float | None
    carrier: str


def activity_json(entries: Sequence[Entry]) -> list[ActivityEntryJson]:
    """The same for programs; what is not known is null."""
    return [
        {
            "came_at": round(entry.came_at, 3),
            "instance": entry.instance or None,
            "key": entry.key,
            "path": entry.path or None,
            "status": entry.result or "running",
            "prompt_tokens": entry.prompt_tokens or None,
            "generated_tokens": entry.generated_tokens or None,
            "tokens_per_second": _rounded(entry.speed),
            "first_byte_seconds": _rounded(entry.first_byte),
            "seconds": _rounded(entry.duration),
            "carrier": entry.carrier,
        }
        for entry in entries
    ]


def _request(entry: Entry) -> RequestView:
    label, tone = _ending(entry.result)
    return RequestView(
        came=moment_html(entry.came_at, "short"),
        model=entry.instance or "–",
        key=entry.key,
        path=entry.path.removeprefix("/v1/") or "–",
        label=label,
        tone=tone,
        prompt_tokens=f"{entry.prompt_tokens:,}" if entry.prompt_tokens else "–",
        generated_tokens=f"{entry.generated_tokens:,}" if entry.generated_tokens else "–",
        speed=f"{entry.speed:.1f}" if entry.speed else "–",
        first_byte="–" if entry.first_byte is None else _seconds(entry.first_byte),
        duration=_seconds(entry.duration),
        by_nginx=entry.carrier == "nginx",
    )


def _ending(result: str) -> tuple[str, str]:
    if result.isdigit():
        return result, "good" if int(result) < 400 else "bad"
    return RESULTS.get(result, (result.replace("_", " "), "bad"))


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else duration_text(seconds)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
