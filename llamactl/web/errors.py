"""What each error looks like to a client: one table, three forms.

Under ``/api`` (and at the few machine-read addresses of the top level) an error is
``{"error", "details"}``, under ``/v1`` and ``/llama-cpp`` it has OpenAI's form, and everywhere else
it is a page. Nothing that reaches a client carries a stack trace.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from flask import Flask, Response, render_template, request
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.sansio.response import Response as AnyResponse

from llamactl import errors
from llamactl.web.answers import json_answer, text_answer
from llamactl.web.refusals import HTTP_PARSER, take_rest

log = logging.getLogger(__name__)

STATUSES: Mapping[type[errors.LlamactlError], int] = {
    errors.LlamactlError: 500,
    errors.InvalidRequest: 400,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unavailable: 503,
    errors.UpstreamGone: 502,
    errors.TooManyRequests: 429,
    errors.AccessDenied: 403,
    errors.MissingKey: 401,
    errors.InvalidKey: 401,
    # A hub that failed us is a bad gateway: a 401 would say that the client's own key is wrong.
    errors.TransferError: 502,
    errors.RepoNotFound: 404,
    errors.EntryNotFound: 404,
    errors.NoSuchTag: 404,
    errors.GatedRepo: 403,
    errors.DisabledRepo: 403,
    errors.IncompleteSet: 409,
    errors.HubOffline: 503,
    errors.RateLimited: 503,
    errors.InsufficientSpace: 507,
    errors.CacheNotWritable: 507,
}

# Werkzeug's own errors: the word that scripts match on, and a sentence that fits this server.
HTTP_WORDS: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request", "The request cannot be understood."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not answer to this method."),
    413: ("request_too_large", "The body is larger than this address takes."),
    415: ("unsupported_media_type", "This address does not take a body of this type."),
    500: ("internal_error", "Something went wrong in llamactl; its log says what."),
}

OPENAI_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

JSON_PREFIXES = ("/api", "/openapi.json", "/healthz", "/metrics")
OPENAI_PREFIXES = ("/v1", "/llama-cpp")
#: Says that an error of this form is llamactl's own, and which; those of an instance never have it.
OURS = "X-Llamactl-Error"


@dataclass(frozen=True)
class Problem:
    """An error as a client is told it, whatever the form; ``field`` names the culprit if known."""

    status: int
    code: str
    details: str
    field: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """The status in words, such as ``Not Found``."""
        return HTTPStatus(self.status).phrase


def status_of(error: errors.LlamactlError) -> int:
    """The status of the nearest class in the table."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def problem_of(error: Exception) -> Problem:
    """What a client is told of any exception; one that nobody foresaw becomes a bare 500."""
    if isinstance(error, errors.LlamactlError):
        return _own_problem(error)
    if isinstance(error, HTTPException):
        return _http_problem(error)
    # gunicorn finds out that a chunked body is broken only while a view reads it.
    if type(error).__module__ == HTTP_PARSER:
        return Problem(400, "invalid_request", "The body is not framed as HTTP prescribes.")
    return Problem(500, *HTTP_WORDS[500])


def openai_body(problem: Problem) -> dict[str, object]:
    """The error object that OpenAI's clients understand."""
    by_class = "invalid_request_error" if problem.status < 500 else "server_error"
    return {
        "error": {
            "message": problem.details,
            "type": OPENAI_TYPES.get(problem.status, by_class),
            "code": problem.code,
            "param": problem.field,
        }
    }


def install(app: Flask) -> None:
    """Make every error of the application leave in the form that its address calls for."""
    # Werkzeug would fold doubled slashes by an HTML redirect, which no API client expects.
    app.url_map.merge_slashes = False
    app.register_error_handler(Exception, _answer)


def _answer(error: Exception) -> AnyResponse:
    problem = problem_of(error)
    if problem.status == 500:
        # An address may have the end of a line in it, and what looks like our next one.
        log.error("%s %r failed", request.method, request.path, exc_info=error)
    answer = _render(problem)
    take_rest(answer)
    return answer


def _own_problem(error: errors.LlamactlError) -> Problem:
    status = status_of(error)
    details = error.details
    if isinstance(error, errors.StartFailed) and error.log_lines:
        details = "\n".join([details, *error.log_lines])
    headers = {}
    seconds = _retry_after(error)
    if seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="llamactl"'
    field = error.field if isinstance(error, errors.InvalidRequest) else None
    return Problem(status, error.code, details, field, headers)


def _retry_after(error: errors.LlamactlError) -> float | None:
    if isinstance(error, errors.Unavailable | errors.TooManyRequests):
        return error.retry_after
    if isinstance(error, errors.RateLimited) and error.retry_at is not None:
        return error.retry_at - time.time()
    return None


def _http_problem(error: HTTPException) -> Problem:
    status = error.code or 500
    if isinstance(error, SecurityError):
        sentence = (
            "This server does not answer to the host name that the request names. "
            "The setting server.allowed_hosts lists the names that it answers to."
        )
        return Problem(status, "invalid_host", sentence)
    code, sentence = HTTP_WORDS.get(status, (f"http_{status}", HTTPStatus(status).phrase + "."))
    if error.description and error.description != type(error).description:
        sentence = error.description
    kept = {
        name: value
        for name, value in error.get_headers()
        if name.lower() in {"allow", "retry-after", "www-authenticate"}
    }
    return Problem(status, code, sentence, headers=kept)


def _form() -> str:
    path = request.path
    if any(path == prefix or path.startswith(prefix + "/") for prefix in OPENAI_PREFIXES):
        return "openai"
    if any(path == prefix or path.startswith(prefix + "/") for prefix in JSON_PREFIXES):
        return "json"
    return "page"


def _render(problem: Problem) -> Response:
    form = _form()
    if form == "openai":
        headers = {**problem.headers, OURS: problem.code}
        return json_answer(openai_body(problem), problem.status, headers)
    if form == "json":
        body = {"error": problem.code, "details": problem.details}
        return json_answer(body, problem.status, problem.headers)
    try:
        page = Response(render_template("error.html", problem=problem), mimetype="text/html")
    except Exception:  # An error page that cannot be drawn must still end in an answer.
        log.exception("the error page could not be drawn")
        page = text_answer(f"{problem.title}\n{problem.details}\n")
    page.status_code = problem.status
    page.headers.extend(problem.headers)
    return page
