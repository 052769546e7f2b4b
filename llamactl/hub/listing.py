"""The hub's JSON, read with distrust: whatever is not as it should be is ``BadMetadata``."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import datetime, timezone
from typing import Any

from llamactl.errors import BadMetadata
from llamactl.hub.remote import SearchHit
from llamactl.models.hubfile import HubFile
from llamactl.models.names import check_commit, check_filename, check_oid, is_filename, is_repo_id

MAX_SIZE = 1 << 42
_NEXT = re.compile(r"<([^<>]*)>\s*;[^,]*\brel=\"?next\"?", re.IGNORECASE)


def parse_json(body: bytes) -> Any:
    """Whatever JSON the hub sent. Raises ``BadMetadata``."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadMetadata("The hub's answer is not JSON") from error


def main_commit(content: Any) -> str:
    """The commit of ``main`` in an answer to ``/refs``, else of its first branch."""
    branches = content.get("branches") if isinstance(content, dict) else None
    if not isinstance(branches, list) or not all(isinstance(branch, dict) for branch in branches):
        raise BadMetadata("The hub's list of branches cannot be read")
    if not branches:
        raise BadMetadata("The repository has no branch")
    chosen = next((branch for branch in branches if branch.get("name") == "main"), branches[0])
    return check_commit(chosen.get("targetCommit"))


def info_commit(content: Any) -> str:
    """The commit in an answer to ``/api/models/{repo}/revision/main``."""
    return check_commit(content.get("sha") if isinstance(content, dict) else None)


def tree_files(content: Any) -> list[HubFile]:
    """The files of one page of a tree."""
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise BadMetadata("The hub's list of files cannot be read")
    files = [_file(row) for row in content if row.get("type") == "file"]
    return [file for file in files if file is not None]


def next_page(link: str) -> str | None:
    """The address of the following page in a ``Link`` header."""
    match = _NEXT.search(link)
    return match[1] if match else None


def search_hits(content: Any) -> list[SearchHit]:
    """The repositories of a search; those whose names could not be used are left out."""
    if not isinstance(content, list):
        raise BadMetadata("The hub's search cannot be read")
    return [
        SearchHit(
            repo_id=row["id"],
            downloads=_count(row.get("downloads")),
            likes=_count(row.get("likes")),
            updated=_timestamp(row.get("lastModified")),
            gated=bool(row.get("gated")),
        )
        for row in content
        if isinstance(row, dict) and isinstance(row.get("id"), str) and is_repo_id(row["id"])
    ]


def _file(row: dict[str, Any]) -> HubFile | None:
    path, lfs = row.get("path"), row.get("lfs")
    if isinstance(path, str) and not is_filename(path) and not _is_of_interest(path):
        return None
    name = check_filename(path)
    if lfs is not None and not isinstance(lfs, dict):
        raise BadMetadata(f"The hub's entry for {name!r} cannot be read")
    # The row's own size may be that of the pointer that git keeps in place of the file.
    size = row.get("size") if lfs is None else lfs.get("size")
    if type(size) is not int or not 0 <= size <= MAX_SIZE:
        raise BadMetadata(f"The hub gives {name!r} an impossible size")
    return HubFile(name, size, check_oid(row.get("oid") if lfs is None else lfs.get("oid")))


def _is_of_interest(path: str) -> bool:
    """Whether a name that cannot be stored is a reason to refuse the whole repository.

    It is where the file could be one to download, or where the name looks made to break out. A
    picture with a colon in its name is simply not listed.
    """
    breaks_out = "\\" in path or any(part in ("", ".", "..") for part in path.split("/"))
    controls = any(unicodedata.category(char) in ("Cc", "Cs") for char in path)
    return breaks_out or controls or path.lower().endswith((".gguf", "preset.ini"))


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _timestamp(value: object) -> float | None:
    """Unix seconds from a time such as ``2025-03-12T10:30:05.000Z``."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
