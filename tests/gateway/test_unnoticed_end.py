"""An instance that ended a moment ago and still looks as if it ran."""

from __future__ import annotations

import socket

from tests.gateway.conftest import Instance, Serve, chat, eventually

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def test_a_request_that_reached_nobody_waits_for_the_instance_to_come_back(
    serve: Serve, instance: Instance
) -> None:
    with socket.socket() as listener:
        # Bound, so that nobody else gets the port, and refusing whoever comes.
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        served = serve(({"id": 2, "name": "gone", "port": port},))
        stream = served.stream(chat(model="gone", stream=False))
        eventually(lambda: served.state()["returned"] >= 2)
        listener.listen()
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(65536).startswith(b"POST /v1/chat/completions")
            connection.sendall(ANSWER)
            assert stream.read_until(b"{}").startswith(b"HTTP/1.1 200")
    stream.close()
    served.settled()
