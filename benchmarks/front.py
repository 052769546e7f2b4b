"""nginx before an instance and before llamactl, for measuring one way beside the other."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from tests.ports import free_port
from tests.requirements import require

DEPLOY = Path(__file__).parent.parent / "deploy"


class Front:
    """nginx on three ports: before the instance, before llamactl, and carrying answers itself.

    The last two are the shipped files, without TLS.
    """

    def __init__(self, folder: Path, instance: int, key: str, llamactl: int, data: Path) -> None:
        self.plain, self.shipped, self.accel = (free_port() for _ in range(3))
        self._folder = folder
        folder.mkdir()
        plain = f"""
            server {{
                listen 127.0.0.1:{self.plain};
                location / {{
                    proxy_pass http://127.0.0.1:{instance};
                    proxy_http_version 1.1;
                    proxy_buffering off;
                    proxy_set_header Connection "";
                    proxy_set_header Authorization "Bearer {key}";
                }}
            }}"""
        sites = [
            self._site("nginx.conf", self.shipped, llamactl, data).replace("llamactl {", "named {")
            .replace("http://llamactl;", "http://named;"),
            self._site("nginx-accel.conf", self.accel, llamactl, data),
        ]  # fmt: skip
        (folder / "nginx.conf").write_text(
            f"""
            {"user root;" if os.geteuid() == 0 else ""}
            daemon off;
            pid {folder}/nginx.pid;
            error_log {folder}/error.log;
            worker_rlimit_nofile 16384;
            events {{ worker_connections 8192; }}
            http {{
                access_log off;
                keepalive_requests 1000000;
                client_body_temp_path {folder}/body;
                proxy_temp_path {folder}/proxy;
                fastcgi_temp_path {folder}/fastcgi;
                uwsgi_temp_path {folder}/uwsgi;
                scgi_temp_path {folder}/scgi;
                {plain}
                {" ".join(sites)}
            }}
            """
        )

    def _site(self, name: str, port: int, llamactl: int, data: Path) -> str:
        text = (DEPLOY / name).read_text()
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{llamactl}")
        text = text.replace("listen 80;", f"listen 127.0.0.1:{free_port()};")
        text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
        text = text.replace("/var/lib/llamactl", str(data))
        text = re.sub(r"\n *ssl_\w+ .*", "", text)
        return re.sub(r"\n *access_log /var/log/.*", "", text)

    def __enter__(self) -> Front:
        self._process = subprocess.Popen(
            (require("nginx"), "-p", str(self._folder), "-c", "nginx.conf"),
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.accel)).close()
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
