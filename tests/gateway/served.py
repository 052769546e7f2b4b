"""The inference routes under a real gunicorn, over instances that the test started itself.

Run by ``Served``: ``gunicorn 'tests.gateway.served:application()'``. What only a test wants to
know, it asks under ``/test``.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from flask import Flask, Response, request

from llamactl.access.keys import Keys
from llamactl.config import load_config
from llamactl.database import Database
from llamactl.errors import InstanceNotFound, Interrupted, StartTimeout
from llamactl.gateway import Gateway, asking
from llamactl.instances.router import RouterModel, read_models
from llamactl.models.fit import Machine
from llamactl.secret import Secret
from llamactl.web import errors, openai
from llamactl.web.activity_view import activity_json
from llamactl.web.answers import json_answer


@dataclass(frozen=True)
class StandingInstance:
    """An instance as the gateway sees it."""

    id: int
    name: str
    status: str
    port: int
    created: float = 1_700_000_000.0
    pid: int | None = None
    health: str | None = "ok"
    in_flight: int = 0
    options: SimpleNamespace = field(default_factory=SimpleNamespace)


class StandingInstances:
    """Leases of instances that run already, or that never come up, counted."""

    def __init__(self, described: list[dict[str, Any]]) -> None:
        self._key = Secret(os.environ["TEST_INSTANCE_KEY"])
        self._known = {
            entry["name"]: StandingInstance(
                entry["id"],
                entry["name"],
                entry.get("status", "running"),
                entry["port"],
                options=SimpleNamespace(
                    aliases=tuple(entry.get("aliases", ())),
                    is_router=entry.get("is_router", False),
                ),
            )
            for entry in described
        }
        self._lock = threading.Lock()
        self.taken = 0
        self.returned = 0
        self.parts = 0

    def instances(self) -> list[StandingInstance]:
        return list(self._known.values())

    def router_models(self, name: str) -> Sequence[RouterModel] | None:
        told = asking.ask(self.get(name).port, "/v1/models", self._key)
        return None if told is None else read_models(told)

    def machine(self) -> Machine:
        return Machine(None)

    def get(self, name: str) -> StandingInstance:
        if name not in self._known:
            raise InstanceNotFound(f"There is no instance {name}")
        return self._known[name]

    def resolve_name(self, model: str) -> StandingInstance | None:
        return next(
            (
                instance
                for instance in self._known.values()
                if model == instance.name or model in instance.options.aliases
            ),
            None,
        )

    @contextlib.contextmanager
    def lease(
        self, name: str, *, timeout: float | None = None, cancelled: Callable[[], bool]
    ) -> Iterator[SimpleNamespace]:
        instance = self.get(name)
        if instance.status != "running":
            self._wait(timeout or 0.0, cancelled)
        with self._lock:
            self.taken += 1
        try:
            yield SimpleNamespace(
                host="127.0.0.1",
                port=instance.port,
                api_key=self._key,
                snapshot=instance,
                passed_on=self._count_part,
                leave_unseen=lambda: None,
                ended=lambda _seconds: None,
            )
        finally:
            with self._lock:
                self.returned += 1

    def _count_part(self) -> None:
        self.parts += 1

    def _wait(self, seconds: float, cancelled: Callable[[], bool]) -> None:
        never = threading.Event()
        for _ in range(int(seconds / 0.05)):
            if cancelled():
                raise Interrupted
            never.wait(0.05)
        raise StartTimeout("It did not start in time", retry_after=3)


def application() -> Flask:
    """The application that gunicorn serves."""
    config = load_config(Path(os.environ["TEST_CONFIG"]))
    database = Database(config.database_file)
    database.open()
    instances = StandingInstances(json.loads(os.environ["TEST_INSTANCES"]))
    keys = Keys(config, database)
    gateway = Gateway(config, cast(Any, instances), keys)
    app = Flask(__name__)
    app.extensions["llamactl"] = SimpleNamespace(
        config=config,
        database=database,
        keys=keys,
        gateway=gateway,
        supervisor=instances,
        downloads=SimpleNamespace(jobs=list),
    )
    errors.install(app)
    for blueprint in openai.blueprints():
        app.register_blueprint(blueprint)
    _add_test_routes(app, instances, keys, gateway)
    return app


def _add_test_routes(
    app: Flask, instances: StandingInstances, keys: Keys, gateway: Gateway
) -> None:
    @app.get("/test/state")
    def state() -> Response:
        return json_answer(
            {
                "taken": instances.taken,
                "returned": instances.returned,
                "parts": instances.parts,
                "in_flight": gateway.in_flight(),
                "waiting": gateway._admission._waiting.total(),
                "threads": threading.active_count(),
                "rss": _resident_kilobytes(),
            }
        )

    @app.get("/test/activity")
    def activity() -> Response:
        return json_answer({"requests": activity_json(gateway.activity())})

    @app.post("/test/keys")
    def make_key() -> Response:
        record, secret = keys.create(**cast(dict[str, Any], request.get_json()))
        return json_answer({"id": record.id, "key": secret.reveal()})

    @app.get("/test/keys/<int:key_id>")
    def show_key(key_id: int) -> Response:
        record = keys.get(key_id)
        return json_answer({"requests": record.requests, "tokens": record.tokens})

    @app.delete("/test/keys/<int:key_id>")
    def delete_key(key_id: int) -> Response:
        keys.delete(key_id)
        return json_answer({})

    @app.post("/test/stop")
    def stop() -> Response:
        gateway.request_stop()
        done = gateway.drain(float(request.args["seconds"]), threading.Event())
        gateway.cut()
        return json_answer({"drained": done})


def _resident_kilobytes() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
