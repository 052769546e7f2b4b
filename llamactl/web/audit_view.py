"""What the audit's page shows, and the same for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from llamactl.access.audit import AuditEntry, AuditPage
from llamactl.web.texts import moment_html


class AuditEntryJson(TypedDict):
    """One management action, or one refusal. `at` is in unix seconds, `status` that of HTTP."""

    id: int
    at: float
    who: str
    what: str
    about: str
    status: int
    source: str
    refused: bool
    unwritten: int


class AuditJson(TypedDict):
    """Some entries, the newest first; `forgotten` were written once and are gone."""

    entries: list[AuditEntryJson]
    kept: int
    forgotten: int


@dataclass(frozen=True)
class AuditEntryView:
    """One row. ``tone`` and ``label`` tell how it ended."""

    at: str
    who: str
    what: str
    about: str
    label: str
    tone: str
    source: str


@dataclass(frozen=True)
class AuditView:
    """``older`` is the id before which the next page begins, None on the last one."""

    entries: tuple[AuditEntryView, ...]
    kept: str
    forgotten: str
    older: int | None


def audit_json(page: AuditPage) -> AuditJson:
    """The rows as the REST interface shows them."""
    return {
        "entries": [_entry_json(entry) for entry in page.entries],
        "kept": page.kept,
        "forgotten": page.forgotten,
    }


def audit_view(page: AuditPage, limit: int) -> AuditView:
    """The rows for people; a page of ``limit`` rows is taken to have another one behind it."""
    full = len(page.entries) == limit
    return AuditView(
        tuple(map(_entry_view, page.entries)),
        f"{page.kept:,}",
        f"{page.forgotten:,}" if page.forgotten else "",
        page.entries[-1].id if full and page.entries[-1].id > 1 else None,
    )


def _entry_json(entry: AuditEntry) -> AuditEntryJson:
    return {
        "id": entry.id,
        "at": round(entry.at, 3),
        "who": entry.who,
        "what": entry.what,
        "about": entry.about,
        "status": entry.status,
        "source": entry.source,
        "refused": entry.refused,
        "unwritten": entry.unwritten,
    }


def _entry_view(entry: AuditEntry) -> AuditEntryView:
    if entry.refused:
        label, tone = f"refused, {entry.status}", "bad"
    else:
        label, tone = (
            ("done", "good") if entry.status < 400 else (f"failed, {entry.status}", "warn")
        )
    about = entry.about
    if entry.unwritten:
        about = f"after {entry.unwritten:,} more that were not written down"
    return AuditEntryView(
        at=moment_html(entry.at, "seconds"),
        who=entry.who,
        what=entry.what,
        about=about,
        label=label,
        tone=tone,
        source=entry.source,
    )
