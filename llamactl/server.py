"""gunicorn as llamactl needs it: one gthread worker that owns every thread and every instance.

Two workers would be two supervisors and two queues on one state, so whatever would make a second
one is refused. Stopping begins at the signal, because gunicorn's ``worker_exit`` comes too late for
instances that need time to end.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from flask import Flask
from gunicorn.app.base import BaseApplication

from llamactl.access.management import ensure_management_key
from llamactl.app import create_app
from llamactl.config import Config, load_config
from llamactl.errors import LlamactlError
from llamactl.locks import FileLock
from llamactl.open_files import allow_open_files
from llamactl.request_threads import RequestThreads
from llamactl.runtime import STOP_LIMIT, STREAM_GRACE, Runtime

log = logging.getLogger("llamactl")

#: gunicorn's own bound on a stop, above the sum of ours.
GRACEFUL_TIMEOUT = int(STREAM_GRACE + STOP_LIMIT + 5)
#: Seconds for the last answers once everything has ended. Whoever still sends a request by then, or
#: does not read its answer, is not waited for: that would be for all of gunicorn's bound.
LAST_ANSWERS = 2.0
#: Open files beside two for each connection, its own and that to an instance.
FURTHER_FILES = 1024
#: What strangers may read without a key is smaller, so that no thread waits until they have.
SEND_BUFFER = 256 * 1024
#: Seconds for everything to end when the gunicorn master was killed.
HURRY_LIMIT = 1.5


def serve(config: Config) -> NoReturn:
    """Run the server in the foreground until it is told to stop. Leaves the process."""
    _Server(config).run()
    sys.exit(0)


def application(config: Config | None = None) -> Flask:
    """The WSGI application for gunicorn. Threads start in the worker, by ``post_worker_init``."""
    config = config or load_config()
    return create_app(config, Runtime(config))


def gunicorn_settings(config: Config) -> dict[str, Any]:
    """gunicorn's settings and hooks for this configuration."""
    hooks = _Hooks(config)
    return {
        "wsgi_app": "llamactl.server:application()",
        "bind": [_bind_address(config.server.host, config.server.port)],
        "workers": 1,
        "worker_class": "llamactl.request_worker.RequestWorker",
        "threads": config.server.threads,
        "worker_connections": _connections(config),
        "timeout": 120,
        "graceful_timeout": GRACEFUL_TIMEOUT,
        "keepalive": 15,
        "max_requests": 0,
        "preload_app": False,
        "reload": False,
        "control_socket_disable": True,
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,
        # Who is believed about scheme and address is `server.trusted_proxies` alone.
        "forwarded_allow_ips": "",
        "loglevel": "warning",
        "proc_name": "llamactl",
        "on_starting": hooks.on_starting,
        "when_ready": hooks.when_ready,
        "nworkers_changed": hooks.nworkers_changed,
        "post_fork": hooks.post_fork,
        "post_worker_init": hooks.post_worker_init,
        "worker_exit": hooks.worker_exit,
        "on_exit": hooks.on_exit,
    }


def _connections(config: Config) -> int:
    return max(1000, 4 * config.server.threads)


def _bind_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn carries no types
    """gunicorn started from our own command line, deaf to gunicorn's."""

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__()

    def load_config(self) -> None:
        for name, value in gunicorn_settings(self._config).items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return application(self._config)


class _Hooks:
    """What happens in the master and in the worker, with what both must share over the fork."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.lock = FileLock(config.server_lock_file)
        # The master holds the write end for as long as it lives; its end is the end of file that
        # wakes the worker.
        self.lifeline: tuple[int, int] | None = None

    def on_starting(self, server: Any) -> None:
        _configure_logging()
        _refuse_second_worker(server.cfg)
        self.config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.lock.acquire():
            holder = self.lock.holder()
            raise RuntimeError(
                f"{self.config.data_dir} is used by another llamactl (process "
                f"{holder.get('pid')}{', at ' + holder['url'] if holder.get('url') else ''}). "
                "Stop it, or give this one a data_dir of its own."
            )
        self.lock.write_note(pid=os.getpid())
        _check_addresses(server.cfg)
        allow_open_files(2 * _connections(self.config) + FURTHER_FILES)
        self.lifeline = os.pipe()
        try:
            key = ensure_management_key(self.config)
        except LlamactlError as error:
            raise RuntimeError(error.details) from error
        if key is not None and key.created and sys.stdout.isatty():
            print(f"The management key, shown this once: {key.secret.reveal()}")  # noqa: T201  # to a person
        if key is not None:
            print(f"The management key is kept in {key.path}", flush=True)  # noqa: T201

    def when_ready(self, server: Any) -> None:
        host, port = server.LISTENERS[0].sock.getsockname()[:2]
        self.lock.write_note(pid=os.getpid(), url=self._url(host, port))
        for listener in server.LISTENERS:
            # Connections have it from their listener.
            listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        _tell_workers_of_a_second_signal(server)

    def nworkers_changed(self, server: Any, new: int, _old: int | None) -> None:
        if new > 1:
            log.warning("llamactl runs with one worker; the request for %d is ignored", new)
            server.num_workers = 1

    def post_fork(self, _server: Any, _worker: Any) -> None:
        if self.lifeline is not None:
            os.close(self.lifeline[1])

    def post_worker_init(self, worker: Any) -> None:
        runtime: Runtime = worker.wsgi.extensions["llamactl"]
        try:
            # What was read stays. Each time that Python looked for garbage among the objects of
            # a thousand models, a request would wait for 20 ms more.
            runtime.start(caches_read=gc.freeze)
        except LlamactlError as error:
            log.error("%s", error.details)
            sys.exit(3)  # gunicorn's word for "do not start another worker"
        _stop_on_signals(worker, runtime)
        worker.tpool.shutdown(wait=False)
        worker.tpool = RequestThreads(self.config.server.threads)
        if self.lifeline is not None:
            threading.Thread(
                target=_end_with_the_master,
                args=(self.lifeline[0], worker, runtime),
                name="llamactl-lifeline",
                daemon=True,
            ).start()
        print(f"llamactl is listening on {self._announced_url()}", flush=True)  # noqa: T201

    def worker_exit(self, _server: Any, worker: Any) -> None:
        runtime = getattr(worker, "wsgi", None) and worker.wsgi.extensions["llamactl"]
        if runtime is not None and runtime.started_at:
            runtime.request_stop()
            runtime.join(GRACEFUL_TIMEOUT)
            worker.tpool.shutdown(wait=False)

    def on_exit(self, _server: Any) -> None:
        self.lock.release()

    def _announced_url(self) -> str:
        """The address that the master wrote down; only it knows which port 0 became."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            url = self.lock.read_note().get("url")
            if url:
                return str(url)
            time.sleep(0.01)
        return self._url(self.config.server.host, self.config.server.port)

    def _url(self, host: str, port: int) -> str:
        return f"http://{_bind_address(host, port)}{self.config.server.url_prefix}"


def _refuse_second_worker(settings: Any) -> None:
    worker_class = settings.settings["worker_class"].get()
    reasons = {
        "--workers": settings.workers != 1,
        "--worker-class": str(worker_class).rsplit(".", 1)[-1] != "RequestWorker",
        "--preload": settings.preload_app,
        "--reload": settings.reload,
        "--max-requests": settings.max_requests != 0,
    }
    refused = [flag for flag, wrong in reasons.items() if wrong]
    if refused:
        raise RuntimeError(
            f"llamactl refuses {', '.join(refused)}: one gthread worker owns the instances and the "
            "downloads, a second one would start them twice, and one that is recycled would stop "
            "them. Use server.threads for more requests at the same time."
        )


def _check_addresses(settings: Any) -> None:
    """Say at once what is wrong with an address, which gunicorn tries five times over."""
    if {"GUNICORN_FD", "LISTEN_PID"} & os.environ.keys():
        return  # The sockets come from outside, already bound.
    for address in settings.address:
        if not isinstance(address, tuple):
            continue
        host, port = address
        try:
            family, kind, protocol, _, target = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(target)
        except OSError as error:
            raise RuntimeError(
                f"llamactl cannot listen on {_bind_address(host, port)}: {error.strerror}. "
                "Name another address with --host and --port, or server.host and server.port."
            ) from error


def _tell_workers_of_a_second_signal(server: Any) -> None:
    """Have the master pass a second signal on, which gunicorn does not look at while it stops."""
    seen: list[int] = []

    def tell(number: int, frame: FrameType | None) -> None:
        if seen:
            server.kill_workers(signal.SIGQUIT)
        else:
            server.signal(number, frame)
        seen.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, tell)


def _stop_on_signals(worker: Any, runtime: Runtime) -> None:
    """Stop everything on the first signal, without grace on the second."""
    seen: list[int] = []

    def stop(_signal: int, _frame: FrameType | None) -> None:
        runtime.request_stop(hurry=bool(seen))
        if not seen:
            threading.Thread(
                target=_end_once_stopped, args=(runtime,), name="llamactl-end", daemon=True
            ).start()
        seen.append(_signal)
        worker.alive = False

    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, stop)
        signal.siginterrupt(number, False)
    # A terminal sends it to the master too, which passes it on: it would count twice. Not SIG_IGN,
    # which the instances would inherit.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    signal.siginterrupt(signal.SIGINT, False)


def _end_once_stopped(runtime: Runtime) -> NoReturn:
    """End this process soon after everything of ours has, whoever is still connected."""
    runtime.join()
    time.sleep(LAST_ANSWERS)
    os._exit(0)


def _end_with_the_master(lifeline: int, worker: Any, runtime: Runtime) -> None:
    """Wait for the master's end, then end everything and this process at once."""
    while os.read(lifeline, 1):
        pass
    worker.alive = False
    runtime.request_stop(hurry=True)
    runtime.join(HURRY_LIMIT)
    os._exit(1)


@functools.cache
def _configure_logging() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
