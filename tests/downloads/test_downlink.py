"""A line to the servers of the bytes: proxies yes, stored passwords no, and it can be cut."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3

from llamactl.downloads.downlink import Downlink
from llamactl.errors import Interrupted
from tests.downloads.conftest import REPO, Site
from tests.downloads.waiting import LONG
from tests.fakes.fake_hub import FakeHub
from tests.requirements import require


@pytest.fixture
def line() -> Iterator[Downlink]:
    downlink = Downlink(connect_timeout=LONG, silence_timeout=LONG)
    yield downlink
    downlink.close()
    downlink.release()


class Proxy(http.server.BaseHTTPRequestHandler):
    """Forwards what it is asked for by its full address, and notes the addresses."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        url = urlsplit(self.path)
        connection = http.client.HTTPConnection(url.netloc)
        with contextlib.closing(connection):
            connection.request(self.command, f"{url.path}?{url.query}", headers=dict(self.headers))
            answer = connection.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.read())

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Noting", (Proxy,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_the_systems_proxy_is_used_for_bytes_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy() as (address, asked):
        monkeypatch.setenv("HTTP_PROXY", address)
        monkeypatch.setenv("http_proxy", address)
        site.assert_complete(site.download())
    assert any(site.hub.cdn_endpoint in url for url in asked)


def test_hosts_that_are_exempt_from_the_proxy_are_reached_directly(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    site.assert_complete(site.download())


def test_a_password_in_netrc_goes_nowhere(
    hub: FakeHub, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    hub.routes.repos[REPO].private = True
    site.token = hub.token
    site.assert_complete(site.download())
    assert hub.leaks == []


@contextlib.contextmanager
def silent_server(context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Accepts, sends headers and ten bytes of a thousand, and then nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            accepted.append(connection)
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789")

    thread = threading.Thread(target=serve)
    thread.start()
    scheme = "http" if context is None else "https"
    try:
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/file"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in accepted:
            connection.close()


def read_all(line: Downlink, url: str, answered: threading.Event, outcome: list[object]) -> None:
    try:
        response = line.get(url, {})
        answered.set()
        with contextlib.closing(response):
            outcome.append(response.read(1000))
    except (urllib3.exceptions.HTTPError, OSError, Interrupted) as error:
        outcome.append(error)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_silent_read_ends_at_once_when_the_line_is_cut(
    line: Downlink, encrypted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = server_context(tmp_path, monkeypatch) if encrypted else None
    answered = threading.Event()
    outcome: list[object] = []
    with silent_server(context) as url:
        reader = threading.Thread(target=read_all, args=(line, url, answered, outcome))
        reader.start()
        assert answered.wait(LONG)
        # For the read to block; a cut that comes before it does must end it just as well.
        time.sleep(0.2)
        assert reader.is_alive()
        line.cut()
        # What would end it otherwise is the limit on silence.
        reader.join(LONG / 2)
        assert not reader.is_alive()
    # What had come is not lost, unless the end of the encryption makes an error of it.
    assert outcome == [b"0123456789"] or isinstance(outcome[0], Exception)
    if not encrypted:
        assert outcome == [b"0123456789"]


def test_a_closed_line_asks_for_nothing(line: Downlink) -> None:
    line.close()
    with pytest.raises(Interrupted):
        line.get("http://127.0.0.1:9/", {})


def test_bytes_come_over_tls_with_the_certificates_of_the_environment(
    line: Downlink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = server_context(tmp_path, monkeypatch)
    with silent_server(context) as url:
        response = line.get(url, {})
        assert response.read(10) == b"0123456789"
        response.close()


def test_a_certificate_that_nobody_vouches_for_is_refused(
    line: Downlink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = server_context(tmp_path, monkeypatch)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with silent_server(context) as url, pytest.raises(urllib3.exceptions.SSLError):
        line.get(url, {})


def server_context(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side of TLS, whose certificate this process trusts."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [require("openssl"), "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key)]
    command += ["-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    return context
