"""Small questions to an instance that no client asked: quick, bounded, and without a lease."""

from __future__ import annotations

from llamactl.errors import UpstreamGone
from llamactl.gateway.client import Client
from llamactl.gateway.exchange import Exchange
from llamactl.secret import Secret

#: Seconds that an instance may take to answer.
ASK_SECONDS = 2.0
_HOST = "127.0.0.1"
_LARGEST = 4 << 20


def ask(port: int, path: str, key: Secret | None = None) -> bytes | None:
    """The body of a 200; None for any other answer, or where none comes in time.

    A lease would count as a use: whoever asks every minute would keep every instance awake.
    """
    headers = [("Host", f"{_HOST}:{port}"), ("Connection", "close")]
    if key is not None:
        headers.append(("Authorization", f"Bearer {key.reveal()}"))
    try:
        exchange = Exchange(_HOST, port, Client(None), ASK_SECONDS)
    except UpstreamGone:
        return None
    try:
        head = exchange.send("GET", path, headers, b"")
        raw = exchange.ready()
        while len(raw) < _LARGEST and (piece := exchange.read()):
            raw += piece
        return raw if head.status == 200 else None
    except UpstreamGone:
        return None
    finally:
        exchange.close()
