"""The gateway: inference requests on their way to an instance and back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamactl.access.keys import Keys
from llamactl.access.principal import Principal
from llamactl.config import Config
from llamactl.errors import (
    InvalidKey,
    InvalidRequest,
    LlamactlError,
    ShuttingDown,
)
from llamactl.gateway.activity import Activity, Entry
from llamactl.gateway.admission import Admission
from llamactl.gateway.catalogue import Catalogue, NamedModelJson
from llamactl.gateway.client import Client
from llamactl.gateway.headers import Headers
from llamactl.gateway.media import remote_addresses
from llamactl.gateway.offload import Offload
from llamactl.gateway.passage import Call, Passage
from llamactl.gateway.routing import Body, no_model, read_form, read_json, readings
from llamactl.gateway.statistics import InstanceStatistics, Statistics
from llamactl.gateway.turns import Turns
from llamactl.gateway.usage import UNKNOWN, Usage

if TYPE_CHECKING:
    from llamactl.instances.snapshot import InstanceSnapshot
    from llamactl.instances.supervisor import Supervisor


@dataclass(frozen=True)
class Route:
    """Where a request goes: an instance, and its body as that instance has to see it.

    ``intact``: whether that is the client's own body, byte for byte.
    """

    instance: InstanceSnapshot
    body: bytes
    intact: bool


class Gateway:
    """Admits requests, finds their instance, and keeps count of them. Thread-safe."""

    def __init__(self, config: Config, supervisor: Supervisor, keys: Keys) -> None:
        self._config = config
        self._supervisor = supervisor
        self._keys = keys
        self._admission = Admission(config.gateway)
        self._catalogue = Catalogue(supervisor)
        self._statistics = Statistics()
        self._activity = Activity()
        self._turns = Turns()
        self._offload = (
            Offload(config.data_dir, config.server.port) if config.server.accel else None
        )
        keys.on_delete(self._cut_key)

    def start(self) -> None:
        """Begin to listen to nginx, where it carries answers. Raises ``ConfigError``."""
        if self._offload is not None:
            self._offload.start()

    def admit(self, principal: Principal, connection: socket.socket | None) -> Passage:
        """Let a request in, before its body is read.

        ``connection`` is the client's socket where the web server shows it. Raises
        ``TooManyRequests`` or ``ShuttingDown``.
        """
        passage = Passage(
            self._config,
            self._supervisor,
            self._admission,
            principal,
            Client(connection),
            self._turns,
            self._close,
        )
        try:
            self._admission.enter(passage)
        except LlamactlError as error:
            self._statistics.record("", error.code, 0.0, None, UNKNOWN)
            raise
        return passage

    def read_body(self, raw: bytes, content_type: str) -> Body:
        """Read a request's body, a form or JSON. Raises ``InvalidRequest``.

        An address that llama.cpp would fetch is refused, unless ``gateway.allow_remote_media``.
        """
        if content_type.lower().startswith("multipart/form-data"):
            return read_form(raw, content_type)
        body = read_json(raw)
        if body.value is not None and not self._config.gateway.allow_remote_media:
            for _ in remote_addresses(body.value):
                raise InvalidRequest(
                    "The request names an address to fetch, which this server does not do",
                    hint="Send the file itself as a data: URL, or set gateway.allow_remote_media.",
                )
        return body

    def route(self, principal: Principal, body: Body) -> Route:
        """The instance that a body's model names, among those that ``principal`` may use.

        Raises ``ModelNotFound``, alike for what is unknown and for what is forbidden.
        """
        if body.model is None:
            raise InvalidRequest("The request names no model", field="model")
        for name, inner in readings(body.model):
            instance = self._supervisor.resolve_name(name)
            if instance is not None and principal.may_use(instance.id):
                if inner is None:
                    return Route(instance, body.raw, intact=True)
                return Route(instance, body.with_model(inner), intact=False)
        raise no_model(body.model)

    def instance(self, principal: Principal, name: str) -> InstanceSnapshot:
        """An instance by its name. Raises ``ModelNotFound``, alike for unknown and forbidden."""
        instance = self._supervisor.resolve_name(name)
        if instance is None or not principal.may_use(instance.id):
            raise no_model(name)
        return instance

    def models(self, principal: Principal) -> list[NamedModelJson]:
        """What ``principal`` may name as a model, in OpenAI's form."""
        return self._catalogue.models(principal)

    def hand_over(self, passage: Passage, call: Call, proof: str | None) -> Headers | None:
        """Have nginx carry this request, where it may; the headers that tell it how.

        ``proof`` is what the request's ``PROOF_HEADER`` says. Raises what waiting for an instance
        raises. None: the request is to be forwarded here.
        """
        if self._offload is None or not self._offload.takes(call, proof):
            return None
        return self._offload.take(passage, call)

    def instance_tokens(self) -> Mapping[str, Usage]:
        """Tokens as instances count them, of those that nginx was sent to."""
        if self._offload is None:
            return {}
        return self._offload.tokens.counts(self._supervisor.instances())

    def in_flight(self) -> int:
        """How many requests are inside."""
        return self._admission.count()

    def activity(self) -> list[Entry]:
        """The requests that run and the last ones that have ended, those that came last first."""
        inside = self._admission.guests()
        running = [_entry(each, "", UNKNOWN, None) for each in inside if isinstance(each, Passage)]
        running.sort(key=lambda entry: entry.came_at, reverse=True)
        return running + self._activity.entries()

    def statistics(self) -> Mapping[str, InstanceStatistics]:
        """What was done since the start, by instance."""
        return self._statistics.snapshot()

    def request_stop(self) -> None:
        """Let nobody in any more; who is inside goes on."""
        self._admission.close()

    def drain(self, seconds: float, hurry: threading.Event) -> bool:
        """Wait until the last request has left; false if ``seconds`` or ``hurry`` came first."""
        return self._admission.wait_until_empty(seconds, hurry)

    def cut(self) -> None:
        """End every request that is still inside; their clients are told why.

        Those that nginx carries end with their instances.
        """
        self._admission.cut(lambda _: True, ShuttingDown("The server is shutting down"))
        if self._offload is not None:
            self._offload.stop()

    def _cut_key(self, key_id: int) -> None:
        self._admission.cut(
            lambda guest: guest.principal.key_id == key_id,
            InvalidKey("The key of this request was deleted"),
        )

    def _close(self, passage: Passage) -> None:
        self._admission.leave(passage)
        usage = passage.tail.usage()
        speed = passage.tail.speed()
        self._activity.add(_entry(passage, passage.result, usage, speed))
        self._statistics.record(
            passage.instance,
            passage.result,
            time.monotonic() - passage.started,
            passage.first_byte,
            usage,
            streamed=passage.streams,
        )
        if passage.principal.key_id is not None:
            self._keys.count(passage.principal.key_id, requests=1, tokens=sum(usage))
            self._keys.flush_if_due()


def _entry(passage: Passage, result: str, usage: Usage, told: float | None) -> Entry:
    duration = time.monotonic() - passage.started
    writing = duration - (passage.first_byte or 0.0)
    return Entry(
        came_at=time.time() - duration,
        instance=passage.instance,
        key=passage.principal.name,
        path=passage.path,
        result=result,
        duration=duration,
        first_byte=passage.first_byte,
        prompt_tokens=usage.prompt,
        generated_tokens=usage.generated,
        # Between its first and its last byte a stream is written; an answer in one piece is not.
        speed=told or (usage.generated / writing if usage.generated and writing > 0.1 else None),
        carrier=passage.carrier,
    )
