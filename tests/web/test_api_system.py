"""The server's own facts by REST."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from llamactl import __version__
from tests.fakes.fake_hub import FakeHub
from tests.web.conftest import Models


def test_the_version_is_the_packages(client: FlaskClient) -> None:
    told = client.get("/api/v1/version").get_json()
    assert told["version"] == __version__
    assert 0 < told["started_at"] <= time.time()


def test_the_configuration_is_shown_without_its_keys(
    client: FlaskClient, management_key: str
) -> None:
    answer = client.get("/api/v1/config")
    assert answer.get_json()["server"]["host"] == "127.0.0.1"
    assert management_key not in answer.text


def test_this_server_is_the_one_node_that_models_name(
    client: FlaskClient, models: Models, hub: FakeHub
) -> None:
    hub.add_repo("org/small-GGUF", {"small-Q4_K_M.gguf": b"GGUF" * 100})
    models.fetch("org/small-GGUF:Q4_K_M")
    nodes = client.get("/api/v1/nodes").get_json()
    assert list(nodes) == [models.list()[0]["node"]]
    assert all(node["address"].startswith("http") for node in nodes.values())


class TestProgram:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> dict[str, object]:
        program = tmp_path / "talkative"
        program.write_text("#!/bin/sh\necho I was asked for $*\n")
        program.chmod(0o755)
        return {"backends.llama-cpp.command": str(program)}

    @pytest.mark.parametrize(
        ("what", "flag"),
        [("help", "--help"), ("version", "--version"), ("devices", "--list-devices")],
    )
    def test_the_program_behind_the_instances_tells_of_itself(
        self, client: FlaskClient, what: str, flag: str
    ) -> None:
        answer = client.get(f"/api/v1/backends/llama-cpp/{what}")
        assert (answer.status_code, answer.mimetype) == (200, "text/plain")
        assert answer.text == f"I was asked for {flag}\n"


class TestNoProgram:
    @pytest.fixture
    def settings(self) -> dict[str, object]:
        return {"backends.llama-cpp.command": "no-such-llama-server"}

    def test_where_there_is_no_program_it_is_told_what_to_install(
        self, client: FlaskClient
    ) -> None:
        answer = client.get("/api/v1/backends/llama-cpp/help")
        assert answer.status_code == 503
        assert "Install" in answer.get_json()["details"]
