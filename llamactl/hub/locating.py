"""Where the bytes of one file are, and what the hub says that they are."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence

from llamactl.errors import BadMetadata
from llamactl.hub.refusals import Asked, refusal
from llamactl.hub.remote import RemoteFile
from llamactl.hub.transport import Reply, Transport
from llamactl.models.hubfile import HubFile
from llamactl.models.names import check_oid, is_oid

_REFUSES_HEAD = frozenset({405, 501})


def locate(
    transport: Transport,
    asked: Asked,
    url: str,
    commit: str,
    expected: HubFile | None,
    halt: threading.Event | None,
) -> RemoteFile:
    """Ask a ``resolve`` address, go where it leads, and read what the answers say of the file.

    Raises the error of a refusal, and ``BadMetadata`` where the answers contradict ``expected`` or
    say too little to know the bytes by.
    """
    reply = _head(transport, url, halt, abroad=False)
    if reply.status >= 400:
        told = Asked(asked.endpoint, asked.repo_id, asked.filename, reply.with_token)
        raise refusal(told, reply.status, reply.headers, reply.body)
    trail, where = list(reply.trail), reply.url
    if reply.onward is not None:
        where = reply.onward
        transport.check_reachable(where, halt)
        if not _first(trail, "X-Linked-ETag") or not _first(trail, "X-Linked-Size"):
            # A mirror that sends on to another hub: only that one knows the file.
            further = _head(transport, where, halt, abroad=True)
            if further.status < 400:
                trail, where = [*trail, *further.trail], further.url
    size = _size(trail, expected)
    oid, etag = _identity(trail, expected)
    _check(asked, trail, commit, size, oid, expected)
    return RemoteFile(where, size, oid, etag, commit, transport.headers_for(where))


def _head(transport: Transport, url: str, halt: threading.Event | None, *, abroad: bool) -> Reply:
    reply = transport.request("HEAD", url, halt=halt, accept="*/*", abroad=abroad)
    if reply.status in _REFUSES_HEAD:
        one_byte = {"Range": "bytes=0-0"}
        return transport.request(
            "GET", url, halt=halt, accept="*/*", headers=one_byte, abroad=abroad, read_body=False
        )
    return reply


def _first(trail: Sequence[Mapping[str, str]], name: str) -> str:
    """The first value of a header on the way; the hub itself comes before its CDN."""
    return next((headers[name] for headers in trail if headers.get(name)), "")


def _size(trail: Sequence[Mapping[str, str]], expected: HubFile | None) -> int:
    linked = _first(trail, "X-Linked-Size")
    if linked.isdecimal():
        return int(linked)
    last = trail[-1]
    if "Location" not in last and last.get("Content-Encoding", "identity") == "identity":
        total = re.fullmatch(r"bytes \d+-\d+/(\d+)", last.get("Content-Range", ""))
        length = total[1] if total else last.get("Content-Length", "")
        if length.isdecimal():
            return int(length)
    if expected is None:
        raise BadMetadata("The hub does not say how long the file is")
    return expected.size


def _identity(trail: Sequence[Mapping[str, str]], expected: HubFile | None) -> tuple[str, str]:
    """The digest of the bytes, and the header as received that named it."""
    linked = _first(trail, "X-Linked-ETag")
    if linked:
        return check_oid(_bare(linked)), linked
    etag = trail[-1].get("ETag", "")
    if expected is not None:
        return expected.oid, etag
    if not is_oid(_bare(etag)):
        raise BadMetadata("The hub does not say which bytes the file has")
    return _bare(etag), etag


def _bare(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


def _check(
    asked: Asked,
    trail: Sequence[Mapping[str, str]],
    commit: str,
    size: int,
    oid: str,
    expected: HubFile | None,
) -> None:
    """Raise ``BadMetadata`` where the answers are not about the file that was meant."""
    name = f"{asked.filename!r} of {asked.repo_id}"
    told = _first(trail, "X-Repo-Commit")
    if told and told != commit:
        raise BadMetadata(f"The hub answered with another commit of {name} than was asked")
    if expected is not None and (size, oid) != (expected.size, expected.oid):
        raise BadMetadata(
            f"The hub now says another size or digest of {name} than its list of files",
            hint="Start the download again; if it stays so, the hub or mirror is at fault",
        )
