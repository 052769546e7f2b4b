"""llamactl behind a real nginx with the shipped configuration."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Make
from tests.e2e.processes import PATIENCE, LlamactlProcess, children, wait_for
from tests.fakes.llama import FakeLlama
from tests.ports import free_port
from tests.requirements import require

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = "llm.example"


class Nginx:
    """nginx with one shipped file, its names and addresses replaced by the test's own."""

    def __init__(self, folder: Path, port: int, sites: str) -> None:
        self.program = require("nginx")
        self.folder = folder
        self.port = port
        (folder / "nginx.conf").write_text(
            f"""
            {"user root;" if os.geteuid() == 0 else ""}
            daemon off;
            pid {folder}/nginx.pid;
            error_log {folder}/error.log info;
            events {{ worker_connections 256; }}
            http {{
                access_log {folder}/access.log;
                client_body_temp_path {folder}/body;
                proxy_temp_path {folder}/proxy;
                fastcgi_temp_path {folder}/fastcgi;
                uwsgi_temp_path {folder}/uwsgi;
                scgi_temp_path {folder}/scgi;
                types {{ text/html html; text/css css; }}
                {sites}
            }}
            """
        )

    def __enter__(self) -> Nginx:
        command = (self.program, "-p", str(self.folder), "-c", "nginx.conf")
        subprocess.run((*command, "-t"), check=True, capture_output=True, timeout=PATIENCE)
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for("nginx to listen", self._listens)
        return self

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE).close()
            return True
        return False

    def kill(self) -> None:
        """End it with all its workers, so that they can say nothing any more."""
        # The master first: it would put another worker in the place of one that was killed.
        for pid in [self._process.pid, *children(self._process.pid)]:
            os.kill(pid, signal.SIGKILL)

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)


def certificate(folder: Path) -> None:
    """A certificate for the shipped name, as ``fullchain.pem`` and ``privkey.pem``."""
    subprocess.run(
        (
            *(require("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"),
            *("-keyout", "privkey.pem", "-out", "fullchain.pem"),
        ),
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )


@pytest.fixture
def front(make_server: Make, tmp_path: Path) -> Iterator[Front]:
    """The shipped host configuration in front of a server whose llama.cpp is a scripted one."""
    llama = FakeLlama(tmp_path)
    server = make_server(
        {
            **llama.settings,
            "server.allowed_hosts": [NAME],
            "server.trusted_proxies": ["127.0.0.1"],
        }
    ).start()
    folder = tmp_path / "nginx"
    folder.mkdir()
    certificate(folder)
    plain, tls = free_port(), free_port()
    sites = (DEPLOY / "nginx.conf").read_text()
    for shipped, ours in (
        ("127.0.0.1:8080", server.url.removeprefix("http://")),
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{tls} ssl;"),
        (f"/etc/ssl/{NAME}", str(folder)),
    ):
        assert shipped in sites
        sites = sites.replace(shipped, ours)
    with Nginx(folder, tls, sites):
        yield Front(server, llama, folder, plain, tls)


class Front:
    """A browser's and a client's way to the server, through TLS."""

    def __init__(
        self, server: LlamactlProcess, llama: FakeLlama, folder: Path, plain: int, tls: int
    ) -> None:
        self.server = server
        self.llama = llama
        self.plain = plain
        self.tls = tls
        self._context = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))

    def connect(self) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.tls), timeout=PATIENCE)
        return self._context.wrap_socket(raw, server_hostname=NAME)

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> ssl.SSLSocket:
        """Send a request; the connection, from which the answer can be read."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {NAME}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection = self.connect()
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return connection

    def get(self, path: str) -> str:
        """The whole answer to a browser, head and body."""
        return self._whole(self.send("GET", path, Connection="close"))

    def ask(self, path: str, body: bytes) -> str:
        """The whole answer to a client with a key, head and body."""
        headers = {"Content_Type": "application/json", "Authorization": f"Bearer {self.server.key}"}
        return self._whole(self.send("POST", path, body, Connection="close", **headers))

    def _whole(self, connection: ssl.SSLSocket) -> str:
        with connection:
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def instance(self, name: str) -> None:
        body = {"backend_type": "llama_cpp", "backend_options": {"model": str(self.llama.model)}}
        answer = self.server.api("POST", f"/instances/{name}", json=body)
        assert answer.status_code == 201, answer.text
        started = self.server.api("POST", f"/instances/{name}/start", params={"wait": PATIENCE})
        assert started.status_code == 200, started.text

    def chat(self, **fake: object) -> ssl.SSLSocket:
        """Ask for a streamed answer of the scripted llama.cpp."""
        body = {
            "model": "chat",
            "stream": True,
            "messages": [{"role": "user", "content": "Hello"}],
            "fake": fake,
        }
        return self.send(
            "POST",
            "/v1/chat/completions",
            json.dumps(body).encode(),
            Content_Type="application/json",
            Authorization=f"Bearer {self.server.key}",
        )


def test_plain_http_is_sent_to_tls(front: Front) -> None:
    answer = requests.get(
        f"http://127.0.0.1:{front.plain}/models?x=1",
        headers={"Host": NAME},
        allow_redirects=False,
        timeout=PATIENCE,
    )
    assert (answer.status_code, answer.headers["Location"]) == (301, f"https://{NAME}/models?x=1")


def test_pages_and_their_files_come_through_and_cookies_are_secure(front: Front) -> None:
    answer = front.get("/login")
    assert answer.startswith("HTTP/1.1 200")
    assert "<form" in answer
    for cookie in re.findall(r"(?im)^set-cookie: (.*)$", answer):
        assert "secure" in cookie.lower()
    styles = re.findall(r'href="(/static/[^"]+\.css[^"]*)"', answer)
    assert styles
    for path in styles:
        assert front.get(path).startswith("HTTP/1.1 200")


def test_another_host_name_is_refused(front: Front) -> None:
    with front.connect() as connection:
        connection.sendall(
            b"GET /login HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        )
        assert b" 400 " in connection.recv(4096).split(b"\r\n")[0]


def test_each_event_of_a_stream_leaves_as_it_comes(front: Front) -> None:
    front.instance("chat")
    # The second event is ten minutes away: whatever holds the first one back holds it for ever.
    with front.chat(tokens=2, gap=600) as connection:
        seen = b""
        while b"word0" not in seen:
            chunk = connection.recv(65536)
            assert chunk, seen
            seen += chunk


@pytest.mark.parametrize("shape", [{"prefill": 600}, {"tokens": 10_000, "gap": 0.05}], ids=str)
def test_a_client_that_leaves_ends_the_generation(front: Front, shape: dict[str, float]) -> None:
    front.instance("chat")
    connection = front.chat(**shape)
    wait_for("the request", lambda: front.llama.events("request"))
    if "tokens" in shape:
        assert connection.recv(4096)
    connection.close()
    wait_for("the abort", lambda: front.llama.events("abort"))


def test_an_upload_within_the_limit_arrives_and_one_beyond_is_told_so(front: Front) -> None:
    front.instance("chat")
    for size, status in ((20 << 20, 200), (33 << 20, 413)):
        body = json.dumps({"model": "chat", "input": "x" * size}).encode()
        answer = front.ask("/v1/embeddings", body)
        assert answer.split()[1] == str(status)
        if status == 413:
            assert "request_too_large" in answer


def test_below_a_path_links_forms_and_answers_keep_the_prefix(
    make_server: Make, tmp_path: Path
) -> None:
    llama = FakeLlama(tmp_path)
    server = make_server({**llama.settings, "server.url_prefix": "/llamactl"}).start()
    folder = tmp_path / "nginx"
    folder.mkdir()
    port = free_port()
    location = (DEPLOY / "nginx-subpath.conf").read_text()
    address = re.sub(r"^http://([^/]+).*", r"\1", server.url)
    assert "127.0.0.1:8080" in location
    location = location.replace("127.0.0.1:8080", address)
    base = f"http://127.0.0.1:{port}"
    with Nginx(folder, port, f"server {{ listen 127.0.0.1:{port}; {location} }}"):
        with requests.Session() as browser:
            browser.trust_env = False
            first = browser.get(f"{base}/llamactl", timeout=PATIENCE)
            assert first.url == f"{base}/llamactl/login" or first.url.startswith(
                f"{base}/llamactl/login?"
            )
            fields: dict[str, Any] = dict(
                re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', first.text)
            )
            action = re.findall(r'<form[^>]*action="([^"]*)"', first.text)
            assert all(target.startswith("/llamactl/") for target in action if target)
            fields["key"] = server.key
            inside = browser.post(first.url, data=fields, timeout=PATIENCE)
            assert inside.status_code == 200, inside.text
            assert inside.url.startswith(f"{base}/llamactl/")
            assert "/login" not in inside.url
            links = re.findall(r'(?:href|src|action)="(/[^"]*)"', inside.text)
            assert links
            assert all(link.startswith("/llamactl/") for link in links)
            for link in {link for link in links if "/static/" in link}:
                assert browser.get(base + link, timeout=PATIENCE).status_code == 200
        models = requests.get(
            f"{base}/llamactl/v1/models", headers=server.headers, timeout=PATIENCE
        )
        assert (models.status_code, models.json()["data"]) == (200, [])
