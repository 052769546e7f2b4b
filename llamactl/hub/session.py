"""The one kind of `requests` session that talks to a hub or its CDN."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies


class HubSession(requests.Session):
    """Uses the environment's proxies and certificates, and never its ``~/.netrc``.

    An entry in ``.netrc`` would replace the token, and go to the CDN as well. So the session does
    not trust the environment as a whole, and takes from it what it needs by itself. It asks for
    bytes as they are (no compression), keeps no cookies, retries nothing and follows no redirect.
    Threads may share it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.headers.clear()
        self.headers["Accept-Encoding"] = "identity"
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = HTTPAdapter(pool_connections=8, pool_maxsize=8, max_retries=0)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: where a redirect leads is for the caller to judge.

        Even when told not to follow, requests would read the whole body of a redirect, however
        long, and fail on an address that it cannot parse.
        """

    def merge_environment_settings(
        self,
        url: str | bytes | None,
        proxies: MutableMapping[str, str] | None,
        stream: bool | None,
        verify: bool | str | None,
        cert: str | tuple[str, str] | None,
    ) -> Any:
        """Add the proxies for ``url`` (minding ``NO_PROXY``) and the certificates to trust."""
        merged = super().merge_environment_settings(url, proxies, stream, verify, cert)
        found: Mapping[str, str] = get_environ_proxies(str(url), no_proxy=None)
        merged["proxies"] = {**found, **merged["proxies"]}
        if merged["verify"] is True:
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
            merged["verify"] = bundle or True
        return merged
