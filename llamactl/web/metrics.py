"""``/healthz`` and ``/metrics``: what machines watch."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

from flask import Blueprint, Response, current_app
from flask.blueprints import BlueprintSetupState
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from llamactl.models.fit import Device, Machine
from llamactl.secret import Secret
from llamactl.web import services
from llamactl.web.answers import text_answer
from llamactl.web.auth import authenticate_management, presented_key
from llamactl.web.collector import Collector

blueprint = Blueprint("metrics", __name__)

EXTENSION = "llamactl_lookout"


class Lookout:
    """The devices as they were seen last. A scrape that finds that old has them looked at anew.

    llama.cpp takes a second or more to tell of a GPU, and no scrape waits for it. Thread-safe.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._seen: Sequence[Device] = ()
        self._at = -seconds
        self._looking = False

    def last(self, look: Callable[[], Machine]) -> Sequence[Device]:
        """What was seen last; nothing before the first look has ended."""
        with self._lock:
            if not self._looking and time.monotonic() - self._at >= self._seconds:
                looker = threading.Thread(
                    target=self._look, args=(look,), name="llamactl-lookout", daemon=True
                )
                # A system that has no more threads is when somebody wants to see the figures.
                with contextlib.suppress(RuntimeError):
                    looker.start()
                    self._looking = True
            return self._seen

    def _look(self, look: Callable[[], Machine]) -> None:
        devices: Sequence[Device] | None = None
        try:
            devices = look().devices
        finally:
            with self._lock:
                self._seen = self._seen if devices is None else devices
                self._at, self._looking = time.monotonic(), False


@blueprint.record
def _remember(state: BlueprintSetupState) -> None:
    state.app.extensions[EXTENSION] = Lookout()


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say ok, to anyone."""
    return text_answer("ok\n")


@blueprint.get("/metrics")
def show() -> Response:
    """Show counters and gauges in Prometheus's text format."""
    _let_in()
    lookout: Lookout = current_app.extensions[EXTENSION]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(services(), lookout.last(services().supervisor.machine)))
    ProcessCollector(registry=registry)
    answer = Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _let_in() -> None:
    wanted = services().config.auth.metrics_key
    key = presented_key()
    if wanted is None or key is None or Secret(key) != wanted:
        authenticate_management()
