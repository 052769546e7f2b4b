"""The REST interface of a running llamactl, as the commands use it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import urllib3

from llamactl import __version__
from llamactl.errors import InvalidRequest, LlamactlError
from llamactl.secret import Secret

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0

#: What a command adds to the server's words, by the error's code.
_HINTS = {
    "instance_not_found": "See those there are with `llamactl instances`.",
    "instance_running": "`llamactl instances rm --stop` does both.",
    "key_not_found": "See those there are with `llamactl keys`.",
}


class ServerUnreachable(LlamactlError):
    """No llamactl answers where one was looked for."""

    code = "server_unreachable"


class ServerRefused(LlamactlError):
    """The server answered with an error; ``error_code`` is its stable word."""

    code = "server_refused"

    def __init__(self, message: str, *, status: int, error_code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.error_code = error_code

    @property
    def details(self) -> str:
        """The server's own words, which may end in lines of a log."""
        return f"{self.message} {self.hint}".strip()


class Server:
    """One server. Paths are relative to ``/api/v1``; answers are decoded JSON."""

    def __init__(self, url: str, key: Secret | None) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest(f"{url!r} is no http:// or https:// address", field="url")
        self._key = key
        self._session = requests.Session()
        # A ~/.netrc would replace our key; what else the environment says is set by hand.
        self._session.trust_env = False
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self._session.headers["User-Agent"] = f"llamactl/{__version__}"
        if key is not None:
            self._session.headers["Authorization"] = f"Bearer {key.reveal()}"

    def get(self, path: str, **query: object) -> Any:
        return self._call("GET", path, query)

    def post(
        self, path: str, body: object = None, wait: float = 0, patience: float = 0, **query: object
    ) -> Any:
        """``wait`` and ``patience`` are seconds on top of the usual time; the server is told of
        ``wait``."""
        if wait:
            query["wait"] = wait
        return self._call("POST", path, query, body=body, extra_seconds=max(wait, patience))

    def put(self, path: str, body: object) -> Any:
        return self._call("PUT", path, {}, body=body)

    def delete(self, path: str, **query: object) -> Any:
        return self._call("DELETE", path, query)

    def text(self, path: str, **query: object) -> str:
        """A plain text answer."""
        with self._send("GET", path, query) as response:
            return response.content.decode("utf-8", "replace")

    def events(self, path: str, **query: object) -> Iterator[str]:
        """The data of a stream of server-sent events, each as it comes."""
        with self._send("GET", path, query, stream=True, read_seconds=None) as response:
            lines: list[str] = []
            try:
                for line in _lines(response):
                    if line.startswith("data:"):
                        lines.append(line[5:].removeprefix(" "))
                    elif not line and lines:
                        yield "\n".join(lines)
                        lines = []
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise ServerUnreachable(f"The connection to {self.url} was cut") from error

    def _call(
        self,
        method: str,
        path: str,
        query: dict[str, object],
        *,
        body: object = None,
        extra_seconds: float = 0,
    ) -> Any:
        seconds = READ_SECONDS + extra_seconds
        with self._send(method, path, query, body=body, read_seconds=seconds) as response:
            return _decode(response) if response.content else None

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, object],
        *,
        body: object = None,
        stream: bool = False,
        read_seconds: float | None = READ_SECONDS,
    ) -> requests.Response:
        try:
            response = self._session.request(
                method,
                f"{self.url}/api/v1{path}",
                params={name: str(value) for name, value in query.items() if value is not None},
                json=body,
                timeout=(CONNECT_SECONDS, read_seconds),
                stream=stream,
                allow_redirects=False,
            )
            if response.status_code >= 300:
                with response:
                    raise self._refusal(response)
        except requests.RequestException as error:
            raise ServerUnreachable(
                f"No llamactl answers at {self.url}",
                hint="Start one with `llamactl`, or name another with --url.",
            ) from error
        return response

    def _refusal(self, response: requests.Response) -> LlamactlError:
        told = _decode(response)
        fields = told if isinstance(told, dict) else {}
        if isinstance(fields.get("error"), dict):
            # An instance's own error, which is passed on in OpenAI's form.
            fields = {"error": "instance_error", "details": fields["error"].get("message", "")}
        error_code = str(fields.get("error", f"http_{response.status_code}"))
        details = str(fields.get("details", f"{self.url} answered {response.status_code}"))
        if response.status_code == 400 and fields:
            return InvalidRequest(details)
        hint = "" if fields else "Is this the address of a llamactl?"
        hint = _HINTS.get(error_code, hint)
        if error_code == "missing_key":
            details = f"{self.url} was sent no key."
        if response.status_code == 401:
            hint = "Name a management key with --key or LLAMACTL_KEY."
        return ServerRefused(details, status=response.status_code, error_code=error_code, hint=hint)


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def _decode(response: requests.Response) -> Any:
    try:
        return json.loads(response.content)
    except ValueError:
        if response.status_code >= 300:
            return None
        raise ServerRefused(
            f"{response.url.partition('?')[0]} did not answer with JSON",
            status=response.status_code,
            error_code="not_json",
            hint="Is this the address of a llamactl?",
        ) from None


def _lines(response: requests.Response) -> Iterator[str]:
    """Lines as they come: ``iter_lines`` holds the last ones back until its buffer is full."""
    rest = b""
    while chunk := response.raw.read1(65536):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.rstrip(b"\r").decode("utf-8", "replace")
