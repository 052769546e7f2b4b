"""Which headers pass, in each direction.

Pure. Hop-by-hop headers end here, with those that ``Connection`` names. What proves the client's
identity to llamactl is never shown to an instance, and nothing of an instance can change how a
browser treats llamactl's own pages.
"""

from __future__ import annotations

from collections.abc import Iterable

Headers = list[tuple[str, str]]

HOP_BY_HOP = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)

_NOT_TO_INSTANCE = HOP_BY_HOP | {
    "accept-encoding",
    "authorization",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "origin",
    "referer",
    "x-api-key",
    # It would let a generation outlive its client, and be read by whoever knows the id.
    "x-conversation-id",
    "x-real-ip",
}
_NOT_TO_INSTANCE_PREFIXES = ("x-forwarded-", "x-llama-server-", "x-llamactl-", "sec-")

_NOT_TO_CLIENT = HOP_BY_HOP | {
    "alt-svc",
    "content-length",
    "content-security-policy",
    "date",
    "location",
    "server",
    "set-cookie",
    "strict-transport-security",
}
# To a proxy in front, X-Accel and X-Sendfile are orders to send what only the server may choose; by
# X-Llamactl clients tell our word from an instance's.
_NOT_TO_CLIENT_PREFIXES = (
    "access-control-",
    "cross-origin-",
    "x-accel-",
    "x-llamactl-",
    "x-sendfile",
)


def to_instance(headers: Iterable[tuple[str, str]], host: str, key: str, length: int) -> Headers:
    """The request's headers for the instance: the client's that may pass, and ours.

    The encoding is ``identity``, so that an answer passes byte by byte as it comes. The connection
    serves one request: an idle one would occupy one of the instance's few threads.
    """
    return [
        ("Host", host),
        ("Authorization", f"Bearer {key}"),
        ("Content-Length", str(length)),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
        *_passing(headers, _NOT_TO_INSTANCE, _NOT_TO_INSTANCE_PREFIXES),
    ]


def to_client(headers: Iterable[tuple[str, str]], length: int | None) -> Headers:
    """The answer's headers for the client. ``length`` is the body's, where it is known."""
    passing = _passing(headers, _NOT_TO_CLIENT, _NOT_TO_CLIENT_PREFIXES)
    if length is not None:
        passing.append(("Content-Length", str(length)))
    if is_event_stream(passing):
        passing = [pair for pair in passing if pair[0].lower() != "cache-control"]
        passing += [
            ("Cache-Control", "no-cache, no-transform"),
            ("X-Accel-Buffering", "no"),
        ]
    return passing


def is_event_stream(headers: Iterable[tuple[str, str]]) -> bool:
    """Whether the body is a stream of server-sent events."""
    return value_of(headers, "content-type").lower().startswith("text/event-stream")


def value_of(headers: Iterable[tuple[str, str]], name: str) -> str:
    """The first header of this name (in lower case), empty if there is none."""
    return next((value for key, value in headers if key.lower() == name), "")


def _passing(
    headers: Iterable[tuple[str, str]], denied: frozenset[str] | set[str], prefixes: tuple[str, ...]
) -> Headers:
    pairs = [(key.lower(), key, value) for key, value in headers]
    named = {
        token.strip().lower()
        for name, _, value in pairs
        if name == "connection"
        for token in value.split(",")
    }
    return [
        (key, value)
        for name, key, value in pairs
        if name not in denied
        and name not in named
        and not name.startswith(prefixes)
        and "\r" not in value
        and "\n" not in value
    ]
