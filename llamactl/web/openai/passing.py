"""What every forwarded request shares: who asks, its body, and the answer on its way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flask import Response, request
from werkzeug.exceptions import UnsupportedMediaType

from llamactl.access.principal import Principal
from llamactl.errors import PermissionDenied
from llamactl.gateway.exchange import ClientGone
from llamactl.gateway.passage import Answer, Call, Passage
from llamactl.gateway.proof import PROOF_HEADER
from llamactl.gateway.routing import Body
from llamactl.web import services
from llamactl.web.auth import authenticate_inference
from llamactl.web.browser import comes_from_our_pages
from llamactl.web.jsonbody import limited_body

#: Nobody reads this answer; the number is for the access log, as nginx writes it.
CLIENT_CLOSED_REQUEST = 499


def inference_principal() -> Principal:
    """Whoever asks for inference. Raises ``AccessDenied``."""
    found = authenticate_inference()
    if not services().config.auth.require_inference_auth:
        _refuse_foreign_pages()
    return found


def forward(principal: Principal, plan: Callable[[], Call]) -> Response:
    """Admit the request, ask an instance, and stream its answer.

    ``plan`` runs once there is a place: it reads the body and decides what to ask.
    """
    connection = request.environ.get("gunicorn.socket")
    with services().gateway.admit(principal, connection) as passage:
        try:
            call = plan()
            told = services().gateway.hand_over(passage, call, request.headers.get(PROOF_HEADER))
            if told is not None:
                return Response(headers=told)
            return _streamed(passage, passage.forward(call))
        except ClientGone:
            passage.result = "client_gone"
            return Response(status=CLIENT_CLOSED_REQUEST)


def raw_body() -> bytes:
    """The request's body as it came. Raises Werkzeug's 413 beyond ``gateway.max_body``."""
    return limited_body(services().config.gateway.max_body)


def model_body() -> Body:
    """The request's body, JSON or a form. Raises ``InvalidRequest``, Werkzeug's 413 or 415."""
    kind = request.mimetype
    # text/plain and the like could be sent by any web page, without the browser asking first.
    if kind not in {"", "multipart/form-data"} and not kind.endswith(("/json", "+json")):
        raise UnsupportedMediaType("Send the body as application/json.")
    return services().gateway.read_body(raw_body(), request.content_type or "")


def headers() -> Iterable[tuple[str, str]]:
    """The request's headers in the order of the server, read when they are needed."""
    return request.headers


def _streamed(passage: Passage, answer: Answer) -> Response:
    response = Response(answer.body, status=answer.status, headers=answer.headers)
    if "Content-Type" not in dict(answer.headers):
        response.content_type = "application/octet-stream"
    # Whatever an instance answers, it is no page of ours and can do nothing in our name.
    response.headers["Content-Security-Policy"] = "sandbox"
    response.call_on_close(passage.close)
    return response


def _refuse_foreign_pages() -> None:
    # Without keys, only the browser's own word tells programs from strangers' pages.
    allowed = request.headers.get("Origin") in services().config.server.allowed_origins
    if not allowed and not comes_from_our_pages():
        raise PermissionDenied(
            "A page of another site may not use this server",
            hint="The setting server.allowed_origins lists the sites that may.",
        )
