"""What a connection that failed is called, and what a person can do about it.

The libraries' own sentences are not passed on: they hold whole URLs, signatures included.
"""

from __future__ import annotations

import requests
import urllib3

from llamactl.errors import NetworkError
from llamactl.hub.urls import origin

#: What a request, or the reading of its answer, raises when the network or the other side fails.
CONNECTION_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)

_LATER = "Check the network, or try again later"


def network_error(error: BaseException, url: str) -> NetworkError:
    """The error that tells of ``error``, which a request to ``url`` met."""
    host = origin(url)[1]
    if isinstance(error, requests.exceptions.ProxyError):
        return NetworkError(
            f"The proxy on the way to {host} failed",
            hint="Check HTTPS_PROXY and HTTP_PROXY, or list the host in NO_PROXY",
        )
    if isinstance(error, requests.exceptions.SSLError):
        return NetworkError(
            f"The certificate of {host} is not trusted",
            hint="Behind a proxy that opens TLS, set REQUESTS_CA_BUNDLE to its certificates",
        )
    if isinstance(error, requests.exceptions.InvalidSchema):
        return NetworkError(
            "The proxy is of a kind that needs a further package",
            hint="Use an http proxy, or install PySocks beside llamactl",
        )
    chain = list(_chain(error))
    if any(isinstance(link, urllib3.exceptions.NameResolutionError) for link in chain):
        return NetworkError(
            f"The name {host} cannot be resolved", hint="Check the network, DNS and HF_ENDPOINT"
        )
    # urllib3 counts a connection that could not be made among the timeouts.
    if any(isinstance(link, urllib3.exceptions.NewConnectionError) for link in chain):
        return NetworkError(f"{host} cannot be reached", hint="Check the network and HF_ENDPOINT")
    if any(isinstance(link, urllib3.exceptions.TimeoutError | TimeoutError) for link in chain):
        return NetworkError(f"{host} did not answer in time", hint=_LATER)
    return NetworkError(f"The connection to {host} broke", hint=_LATER)


def _chain(error: BaseException) -> list[BaseException]:
    """The error, what caused it, and what urllib3 wrapped in it."""
    found: list[BaseException] = []
    pending: list[object] = [error]
    while pending and len(found) < 20:
        link = pending.pop()
        if isinstance(link, BaseException) and link not in found:
            found.append(link)
            pending += [link.__cause__, link.__context__, getattr(link, "reason", None)]
            pending += list(link.args)
    return found
