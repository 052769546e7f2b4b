"""The rest of a refused request's body: taken, by no more threads than can be spared."""

from __future__ import annotations

import io
import socket
from contextlib import ExitStack

import pytest
from flask import Response
from flask.testing import FlaskClient

from llamactl.web import refusals


@pytest.mark.parametrize(("taken", "left"), [(0, b""), (16, b"the rest")])
def test_only_some_threads_take_the_rest_of_refused_bodies(
    client: FlaskClient, taken: int, left: bytes
) -> None:
    body = io.BytesIO(b"the rest")
    ours, theirs = socket.socketpair()
    with ExitStack() as held:
        held.enter_context(ours)
        held.enter_context(theirs)
        for _ in range(taken):
            held.enter_context(refusals.PLACES)
        environ = {"gunicorn.socket": ours, "wsgi.input": body, "CONTENT_LENGTH": "8"}
        with client.application.test_request_context("/v1/embeddings", environ_overrides=environ):
            response = Response("no")
            refusals.take_rest(response)
            response.close()
    assert body.read() == left
