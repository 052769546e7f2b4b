"""Requests to a hub: redirects by hand, the token to its own origin only, bounded in every way."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import requests
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies

from llamactl.errors import (
    BadMetadata,
    Interrupted,
    NetworkError,
    RateLimited,
    TransferError,
    Unauthorized,
)
from llamactl.hub import limits, urls
from llamactl.hub.failures import CONNECTION_ERRORS, network_error
from llamactl.hub.session import HubSession
from llamactl.hub.waiting import Abandonable, pause
from llamactl.secret import Secret

log = logging.getLogger(__name__)

MAX_HOPS = 5
MAX_BODY = 16 << 20
#: Seconds: a longer wait is not sat out here, but told to the caller as ``RateLimited``.
LONGEST_PAUSE = 5.0
_CONNECT_TIMEOUT, _READ_TIMEOUT, _WHOLE_TIMEOUT = 10.0, 20.0, 120.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Reply:
    """An answer, after the redirects that were followed.

    ``trail`` holds the headers of every answer on the way, the last one's too. ``onward`` is the
    address of a redirect that was not followed. ``with_token``: whether this answer is one to a
    request that carried the token.
    """

    url: str = field(repr=False)
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    with_token: bool
    onward: str | None = field(default=None, repr=False)
    trail: tuple[Mapping[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class _Errand:
    """What stays the same through the attempts and redirects of one request."""

    method: str
    headers: Mapping[str, str]
    abroad: bool
    read_body: bool
    halt: threading.Event | None


class Transport:
    """Sends requests to one hub. ``backoff`` is the first pause between attempts, in seconds."""

    def __init__(
        self,
        endpoint: str,
        token: Callable[[], Secret | None],
        user_agent: str,
        *,
        backoff: float = 0.5,
    ) -> None:
        self.endpoint = endpoint
        self.user_agent = user_agent
        self._token = token
        self._backoff = backoff
        self._session = HubSession()

    def request(
        self,
        method: str,
        url: str,
        *,
        halt: threading.Event | None = None,
        accept: str = "application/json",
        headers: Mapping[str, str] | None = None,
        abroad: bool = True,
        read_body: bool = True,
    ) -> Reply:
        """Ask until there is an answer that is worth having; its status may still be a refusal.

        ``abroad``: whether redirects to other origins are followed (the token never is sent there).
        Raises ``NetworkError``, ``RateLimited``, ``BadMetadata``, ``Unauthorized``,
        ``Interrupted``.
        """
        extra = {"Accept": accept, **(headers or {})}
        errand = _Errand(method, extra, abroad, read_body and method != "HEAD", halt)
        for attempt in range(limits.ATTEMPTS):
            failure: TransferError
            wait = limits.backoff(attempt, self._backoff) * random.uniform(0.8, 1.2)
            try:
                reply = self._follow(errand, url)
            except NetworkError as error:
                failure = error
            else:
                if reply.status not in limits.RETRIED:
                    return reply
                failure, wait = self._refused_for_now(reply, wait)
            log.debug("%s %s: %s", method, urls.without_query(url), failure.message)
            if attempt < limits.ATTEMPTS - 1:
                pause(wait, halt)
        raise failure

    def headers_for(self, url: str) -> dict[str, str]:
        """The headers of a request to ``url``; the token is among them on the hub's own origin."""
        headers = {"User-Agent": self.user_agent, "Accept-Encoding": "identity"}
        token = self._token() if urls.same_origin(url, self.endpoint) else None
        if token is not None:
            value = token.reveal()
            if not value.isascii() or not value.isprintable() or " " in value:
                raise Unauthorized(
                    "The token has characters that no token has",
                    hint="Check HF_TOKEN, or the file that `hf auth login` wrote",
                )
            headers["Authorization"] = f"Bearer {value}"
        return headers

    def check_reachable(self, url: str, halt: threading.Event | None = None) -> None:
        """Refuse to be led from a public hub into this machine or a private network.

        Raises ``BadMetadata``. Behind a proxy nothing is checked: names resolve at its other end.
        """
        if get_environ_proxies(url, no_proxy=None):
            return
        inside = Abandonable(lambda _: urls.leads_inside(self.endpoint, url))
        if inside.run(halt, _WHOLE_TIMEOUT):
            host = urls.origin(url)[1]
            raise BadMetadata(f"The hub redirected to {host}, which is no public address")

    def _refused_for_now(self, reply: Reply, wait: float) -> tuple[TransferError, float]:
        """The error for a status that may pass, and the pause before the next attempt."""
        now = time.time()
        asked = limits.asked_wait(reply.headers, now)
        if reply.status != 429 and asked is None:
            return NetworkError(f"The hub answered {reply.status}", hint="Try again later"), wait
        limited = RateLimited(
            "The hub asks to wait before the next request",
            hint=""
            if reply.with_token
            else "With a token (HF_TOKEN, or `hf auth login`) its limits are higher",
            retry_at=now + (limits.UNNAMED_WAIT if asked is None else asked),
        )
        if asked is not None and asked > LONGEST_PAUSE:
            raise limited
        return limited, max(wait, asked or 0.0)

    def _follow(self, errand: _Errand, url: str) -> Reply:
        """One attempt, through its redirects."""
        trail: list[Mapping[str, str]] = []
        for _ in range(MAX_HOPS + 1):
            reply = self._once(errand, url)
            trail.append(reply.headers)
            onward = None
            if reply.status in _REDIRECTS:
                onward = urls.redirect_target(url, reply.headers.get("Location"))
                if errand.abroad or urls.same_origin(onward, self.endpoint):
                    self.check_reachable(onward, errand.halt)
                    url = onward
                    continue
            return replace(reply, onward=onward, trail=tuple(trail))
        raise BadMetadata("The hub redirects in a circle")

    def _once(self, errand: _Errand, url: str) -> Reply:
        """One request, without its redirects."""

        def work(abandoned: threading.Event) -> Reply:
            # The token is asked for here, since a login that has to be renewed does so by network.
            headers = {**self.headers_for(url), **errand.headers}
            try:
                with self._session.request(
                    errand.method,
                    url,
                    headers=headers,
                    timeout=(_CONNECT_TIMEOUT, _READ_TIMEOUT),
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    found = CaseInsensitiveDict(response.headers)
                    body = _read(response, abandoned) if errand.read_body else b""
            except CONNECTION_ERRORS as error:
                raise network_error(error, url) from error
            return Reply(url, response.status_code, found, body, "Authorization" in headers)

        return Abandonable(work).run(errand.halt, _WHOLE_TIMEOUT)


def _read(response: requests.Response, abandoned: threading.Event) -> bytes:
    """The whole body, up to ``MAX_BODY``."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BadMetadata("The hub sent a compressed answer though none was asked for")
    body = bytearray()
    # read1 returns what one recv gave: read would wait for more, for as long as a byte drips in.
    while piece := response.raw.read1(1 << 16, decode_content=False):
        body += piece
        if len(body) > MAX_BODY:
            raise BadMetadata(f"The hub's answer is longer than {MAX_BODY >> 20} MiB")
        if abandoned.is_set():
            raise Interrupted
    return bytes(body)
