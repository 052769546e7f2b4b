"""The hub's addresses, and where a redirect may lead (no network here)."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import quote, urlencode, urljoin, urlsplit

from llamactl.errors import BadMetadata

_DEFAULT_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int | None]


def origin(url: str) -> Origin:
    """Scheme, host and port: what a credential belongs to. Raises ``BadMetadata``."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
        return parts.scheme, (parts.hostname or "").lower(), port
    except ValueError as error:
        raise BadMetadata("The hub sent an address that cannot be read") from error


def same_origin(one: str, other: str) -> bool:
    return origin(one) == origin(other)


def without_query(url: str) -> str:
    """The address as it may be shown: a signed query is as good as a password."""
    return url.partition("?")[0]


def manifest_url(endpoint: str, repo_id: str, tag: str) -> str:
    return f"{endpoint}/v2/{repo_id}/manifests/{quote(tag, safe='')}"


def refs_url(endpoint: str, repo_id: str) -> str:
    return f"{endpoint}/api/models/{repo_id}/refs"


def revision_url(endpoint: str, repo_id: str, revision: str) -> str:
    return f"{endpoint}/api/models/{repo_id}/revision/{quote(revision, safe='')}"


def tree_url(endpoint: str, repo_id: str, commit: str) -> str:
    return f"{endpoint}/api/models/{repo_id}/tree/{commit}?recursive=true"


def resolve_url(endpoint: str, repo_id: str, commit: str, filename: str) -> str:
    return f"{endpoint}/{repo_id}/resolve/{commit}/{quote(filename)}"


def search_url(endpoint: str, text: str, limit: int) -> str:
    wanted = [("expand", name) for name in ("downloads", "likes", "lastModified", "gated")]
    query = [("search", text), ("filter", "gguf"), ("sort", "downloads"), ("limit", str(limit))]
    return f"{endpoint}/api/models?{urlencode(query + wanted)}"


def redirect_target(source: str, location: str | None) -> str:
    """The absolute address that a redirect names.

    Raises ``BadMetadata`` for what must not be followed: no address, another scheme than http(s),
    a step down from https to http, credentials in the address.
    """
    if not location:
        raise BadMetadata("The hub sent a redirect that leads nowhere")
    try:
        target = urljoin(source, location)
        parts = urlsplit(target)
        credentials = parts.username or parts.password
    except ValueError as error:
        raise BadMetadata("The hub sent a redirect that cannot be read") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise BadMetadata(f"The hub redirected to {without_query(target)!r}, which is no web page")
    if parts.scheme == "http" and urlsplit(source).scheme == "https":
        raise BadMetadata("The hub redirected from https to plain http, which is not followed")
    if credentials:
        raise BadMetadata("The hub redirected to an address with a password in it")
    return target


def leads_inside(endpoint: str, url: str) -> bool:
    """Whether ``url`` is on this machine or in a private network, while ``endpoint`` is not."""
    host, home = origin(url)[1], origin(endpoint)[1]
    return host != home and _is_local(host) and not _is_local(home)


def _is_local(host: str) -> bool:
    """By the host's address, or what it resolves to; a name without an address is not local."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(not _is_global(str(address[0])) for *_, address in found)


def _is_global(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global
