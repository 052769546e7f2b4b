"""The last word to a client whose stream breaks, in the dialect that its path speaks.

Pure. What follows it is no clean end: a client that ignores the event still sees that its answer is
not whole.
"""

from __future__ import annotations

import json

from llamactl.errors import LlamactlError


def is_ping(piece: bytes) -> bool:
    """Whether a part of a stream is only comments, by which a server says that it is there."""
    return piece[:1] == b":" and all(line[:1] == b":" for line in piece.splitlines() if line)


def error_event(target: str, error: LlamactlError, at_boundary: bool) -> bytes:
    """One server-sent event that tells of ``error``.

    ``target`` is the path in the instance; ``at_boundary`` is false where an event was cut short,
    which is then ended first.
    """
    body: dict[str, object] = {
        "message": error.details,
        "type": "server_error",
        "code": error.code,
        "param": None,
    }
    head = b"" if at_boundary else b"\n\n"
    if target.endswith("/messages"):
        body = {"type": "error", "error": {"type": "api_error", "message": error.details}}
        head += b"event: error\n"
    elif target.endswith("/responses"):
        body = {**body, "type": "error"}
        head += b"event: error\n"
    else:
        body = {"error": body}
    return head + b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"
