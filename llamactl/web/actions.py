"""What the pages and the API do alike and no single service does alone."""

from __future__ import annotations

from llamactl.errors import InvalidRequest
from llamactl.models.reference import ModelRef
from llamactl.web import services


def delete_cached(repo_id: str, tag: str | None) -> None:
    """Delete a cached tag of a repository, or all of them.

    Raises ``InvalidRequest``, ``ModelNotFound``, and ``ModelInUse`` while a job or an instance uses
    one of its files.
    """
    check_repo(repo_id, tag)
    with services().downloads.removing(repo_id, tag):
        services().cache.delete(repo_id, tag)


def check_repo(repo_id: str, tag: str | None = None) -> None:
    """Raise ``InvalidRequest`` unless this names a repository, and perhaps a tag beside it."""
    if ":" in repo_id:
        raise InvalidRequest(
            "repo is the repository alone, as org/name", hint="Name the tag as tag.", field="repo"
        )
    ModelRef.parse(repo_id)
    if tag == "":
        raise InvalidRequest("tag is empty", hint="Leave it out to mean every tag.", field="tag")
