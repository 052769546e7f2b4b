"""A hub on loopback with one ordinary repository, and clients that ask it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from llamactl.hub.client import HubClient
from llamactl.secret import Secret
from tests.fakes.fake_hub import FakeHub, seeded_bytes

REPO = "org/name-GGUF"
FILES = {
    "README.md": b"# A model\n",
    "m-Q4_K_M.gguf": seeded_bytes(30_000, 1),
    "m-Q8_0.gguf": seeded_bytes(40_000, 2),
    "deep/er/m-BF16.gguf": seeded_bytes(20_000, 3),
    "preset.ini": b"[Q8_0]\ntemp = 0.5\n",
}

ClientFactory = Callable[..., HubClient]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.add_repo(REPO, FILES)
        yield running


@pytest.fixture
def make_client(hub: FakeHub) -> ClientFactory:
    """``make_client(token=…, endpoint=…, offline=…)``; it hardly waits between attempts."""

    def make(
        *, token: str | None = None, endpoint: str | None = None, offline: bool = False
    ) -> HubClient:
        secret = Secret(token) if token is not None else None
        return HubClient(endpoint or hub.endpoint, lambda: secret, offline, backoff=0.01)

    return make


@pytest.fixture
def client(make_client: ClientFactory) -> HubClient:
    """Without a token."""
    return make_client()


@pytest.fixture
def commit(hub: FakeHub) -> str:
    """Where the repository's main is."""
    return hub.routes.repos[REPO].main


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port where nothing listens, nor can while it is held."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
