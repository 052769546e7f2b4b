"""What is left of a refused request's body, read after the answer.

Whoever still sends a body when its connection is closed may never see the answer: nginx then tells
its client 502. So the rest is taken and dropped, within bounds that cost nobody else anything.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import IO

from flask import request
from werkzeug.wrappers import Response

from llamactl.config import RESERVED_THREADS

#: The most that is taken of one request; nginx and gateway.max_body as shipped allow half of it.
LARGEST = 64 << 20
SECONDS = 3.0
#: How many threads may be at it; whoever is refused beyond that is just cut off. Where inference
#: has all the threads that it may have, as many of those that are left still answer.
MOST = RESERVED_THREADS // 2
PLACES = threading.BoundedSemaphore(MOST)
_PIECE = 1 << 16
#: gunicorn's errors of a body that is framed wrong, by name, since views run under others too.
HTTP_PARSER = "gunicorn.http.errors"


def take_rest(response: Response) -> None:
    """Have the rest of this request's body taken once ``response`` has left."""
    connection: socket.socket | None = request.environ.get("gunicorn.socket")
    if connection is None:
        return
    if request.content_length or "Transfer-Encoding" in request.headers:
        body = request.environ["wsgi.input"]
        response.call_on_close(lambda: _drop_where_there_is_room(body, connection))


def _drop_where_there_is_room(body: IO[bytes], connection: socket.socket) -> None:
    if PLACES.acquire(blocking=False):
        try:
            _drop(body, connection)
        finally:
            PLACES.release()


def _drop(body: IO[bytes], connection: socket.socket) -> None:
    # A read may take any number of receives: only the end of the connection bounds them all.
    end = threading.Timer(SECONDS, _stop_receiving, (connection,))
    end.name = "request-rest"
    end.daemon = True
    end.start()
    taken = 0
    try:
        while taken < LARGEST and (piece := body.read(_PIECE)):
            taken += len(piece)
    except OSError:
        return  # It is gone: the web server closes the connection.
    except Exception as error:
        if type(error).__module__ != HTTP_PARSER:
            raise
    finally:
        end.cancel()


def _stop_receiving(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
