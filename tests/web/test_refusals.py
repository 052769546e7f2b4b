"""What strangers can make a thread wait for: little of a body, and none of their own reading."""

from __future__ import annotations

import io
import socket
from contextlib import ExitStack

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient

from llamactl.assets import static_dir
from llamactl.config import RESERVED_THREADS
from llamactl.server import SEND_BUFFER
from llamactl.web import refusals


@pytest.mark.parametrize(("taken", "left"), [(0, b""), (refusals.MOST, b"the rest")])
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


def test_refused_bodies_leave_threads_where_streams_have_all_that_they_may_have() -> None:
    assert 2 * refusals.MOST <= RESERVED_THREADS


def test_what_a_stranger_may_read_has_room_in_the_buffer_of_a_connection(app: Flask) -> None:
    stranger = app.test_client()
    pages = [each.rule for each in app.url_map.iter_rules() if not each.arguments]
    sizes = {address: len(stranger.get(address).data) for address in pages}
    sizes |= {each.name: each.stat().st_size for each in static_dir().rglob("*.*")}
    assert sizes["/openapi.json"] > 0
    # Beside each piece the system keeps as much again of its own.
    assert {address: size for address, size in sizes.items() if size > SEND_BUFFER * 3 // 4} == {}
