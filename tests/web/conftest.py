"""A whole server without its socket: real services over a hub on loopback and fake instances."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from llamactl.access.management import management_secrets
from llamactl.app import create_app
from llamactl.config import Config
from llamactl.runtime import Runtime
from tests.fakes.fake_hub import FakeHub, seeded_bytes
from tests.ports import instance_ports
from tests.web.visitor import Element, Visitor

#: Seconds that only something that hangs takes.
PATIENCE = 60.0
FAKE_SERVER = Path(__file__).parent.parent / "fakes" / "fake_llama_server.py"
INSTANCE_PORTS = instance_ports(21500, 21999)

REPO = "bartowski/Llama-3.2-3B-Instruct-GGUF"
Q4 = "Llama-3.2-3B-Instruct-Q4_K_M.gguf"
Q8 = "Llama-3.2-3B-Instruct-Q8_0.gguf"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        yield running


@pytest.fixture
def settings() -> dict[str, object]:
    """Further settings of the server under test; a test module overrides this fixture."""
    return {}


@pytest.fixture
def web_config(
    make_config: Callable[..., Config], hub: FakeHub, tmp_path: Path, settings: dict[str, object]
) -> Config:
    command = tmp_path / "bin" / "llama-server"
    command.parent.mkdir()
    shutil.copy(FAKE_SERVER, command)
    defaults = {
        "backends.llama-cpp.command": str(command),
        "instances.port_range": INSTANCE_PORTS,
        "instances.default_restart_delay": 0.1,
    }
    return make_config({**defaults, **settings}, hub_endpoint=hub.endpoint)


@pytest.fixture
def runtime(web_config: Config) -> Iterator[Runtime]:
    """The services, started; nothing of them is left when the test ends."""
    services = Runtime(web_config)
    services.start()
    yield services
    services.request_stop(hurry=True)
    assert services.join(PATIENCE)


@pytest.fixture
def app(web_config: Config, runtime: Runtime) -> Flask:
    application = create_app(web_config, runtime)
    application.testing = True
    return application


@pytest.fixture
def management_key(web_config: Config, runtime: Runtime) -> str:
    return management_secrets(web_config)[0].reveal()


@pytest.fixture
def inference_key(runtime: Runtime) -> str:
    return runtime.keys.create("tests")[1].reveal()


@pytest.fixture
def anonymous(app: Flask) -> FlaskClient:
    """A client without a key."""
    return app.test_client()


@pytest.fixture
def client(app: Flask, management_key: str) -> FlaskClient:
    """A client that sends the management key."""
    return with_key(app, management_key)


@pytest.fixture
def visitor(anonymous: FlaskClient, management_key: str) -> Visitor:
    """Someone who is logged in."""
    visitor = Visitor(anonymous)
    visitor.log_in(management_key)
    return visitor


def until(visitor: Visitor, path: str, fits: Callable[[Element], bool]) -> Element:
    """The page at ``path`` once it fits."""
    deadline = time.monotonic() + PATIENCE
    while not fits(page := visitor.open(path)):
        assert time.monotonic() < deadline, page.text
        time.sleep(0.02)
    return page


def add_instance(
    visitor: Visitor, name: str, button: str = "Create Instance", **typed: str
) -> Element:
    """The page after the form of a new instance was sent."""
    visitor.open("/instances")
    visitor.press("Add Instance")
    return visitor.press(button, name=name, **typed)


def with_key(app: Flask, key: str) -> FlaskClient:
    """A client that sends ``key`` with each request."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    return client


class Models:
    """What a person does with models, by REST."""

    def __init__(
        self, client: FlaskClient, base: str = "/api/v1/backends/llama-cpp/models"
    ) -> None:
        self.client = client
        self.base = base

    def download(self, repo: object) -> TestResponse:
        return self.client.post(f"{self.base}/download", json={"repo": repo})

    def job(self, job_id: str) -> Any:
        return self.client.get(f"{self.base}/jobs/{job_id}").get_json()

    def wait(self, job_id: str, *statuses: str) -> Any:
        """The job once it is in one of ``statuses``."""
        deadline = time.monotonic() + PATIENCE
        while (job := self.job(job_id))["status"] not in statuses:
            assert time.monotonic() < deadline, job
            time.sleep(0.01)
        return job

    def fetch(self, repo: str) -> Any:
        """Download ``repo``; the completed job."""
        job_id = self.download(repo).get_json()["job_id"]
        job = self.wait(job_id, "completed", "failed")
        assert job["status"] == "completed", job
        return job

    def list(self) -> Any:
        return self.client.get(self.base).get_json()

    def delete(self, repo: str, tag: str | None = None) -> TestResponse:
        query = {"repo": repo, **({"tag": tag} if tag is not None else {})}
        return self.client.delete(self.base, query_string=query)


class Instances:
    """What a person does with instances, by REST."""

    base = "/api/v1/instances"

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def create(self, name: str, **options: object) -> TestResponse:
        return self.client.post(f"{self.base}/{name}", json=options)

    def do(self, name: str, verb: str, wait: float | None = None) -> TestResponse:
        query = {} if wait is None else {"wait": wait}
        return self.client.post(f"{self.base}/{name}/{verb}", query_string=query)

    def get(self, name: str) -> Any:
        return self.client.get(f"{self.base}/{name}").get_json()

    def wait(self, name: str, *statuses: str) -> Any:
        """The instance once it is in one of ``statuses``."""
        deadline = time.monotonic() + PATIENCE
        while (instance := self.get(name))["status"] not in statuses:
            assert time.monotonic() < deadline, instance
            time.sleep(0.01)
        return instance


@pytest.fixture
def repo(hub: FakeHub) -> str:
    """A repository with two quants and a preset."""
    files = {
        Q4: seeded_bytes(200_000, 1),
        Q8: seeded_bytes(300_000, 2),
        "preset.ini": b"[default]\n",
    }
    hub.add_repo(REPO, files)
    return REPO


@pytest.fixture
def slow(hub: FakeHub, repo: str) -> str:
    """A reference whose download does not end while a test looks at it."""
    hub.add_repo("slow/model-GGUF", {"model-Q4_K_M.gguf": seeded_bytes(4_000_000, 3)})
    hub.throttle(20_000)
    return "slow/model-GGUF:Q4_K_M"


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A file that passes for a model wherever nobody loads it."""
    path = tmp_path / "models" / "m.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + bytes(16))
    return str(path)


@pytest.fixture
def models(client: FlaskClient) -> Models:
    return Models(client)


@pytest.fixture
def instances(client: FlaskClient) -> Instances:
    return Instances(client)
