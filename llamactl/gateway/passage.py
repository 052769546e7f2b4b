"""One inference request from its admission to the last byte of its answer."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from llamactl.access.principal import Principal
from llamactl.config import Config
from llamactl.errors import (
    InstanceNotRunning,
    InsufficientMemory,
    Interrupted,
    LlamactlError,
    MaxInstancesReached,
    UpstreamGone,
)
from llamactl.gateway import headers as rules
from llamactl.gateway.admission import Admission
from llamactl.gateway.client import Client
from llamactl.gateway.events import error_event, is_ping
from llamactl.gateway.exchange import ClientGone, Cut, Exchange, NotAnswered, NotListening
from llamactl.gateway.routing import no_model
from llamactl.gateway.tail import Tail
from llamactl.gateway.turns import Turn, Turns

if TYPE_CHECKING:
    from llamactl.instances.lease import Lease
    from llamactl.instances.snapshot import InstanceSnapshot
    from llamactl.instances.supervisor import Supervisor

log = logging.getLogger(__name__)

#: Seconds after an instance's death in which its owner is sure to notice.
_UNNOTICED_SECONDS = 2.0
_AGAIN_SECONDS = 0.05


@dataclass(frozen=True)
class Call:
    """What to ask of an instance.

    ``wakes``: whether a stopped one is started for it. ``intact``: whether the body is, byte for
    byte, the client's own, and the answer needs no look.
    """

    instance: InstanceSnapshot
    method: str
    target: str
    headers: Iterable[tuple[str, str]]
    body: bytes
    wakes: bool = True
    intact: bool = False


@dataclass(frozen=True)
class Answer:
    """What came back. ``body`` is read once; breaking off ends the generation."""

    status: int
    headers: rules.Headers
    body: Iterator[bytes]


class Passage:
    """Holds a place, a lease and a connection, and gives each back exactly once.

    As a context it closes itself at the end of the block, unless an answer was handed out: then
    whoever took it calls ``close`` once the answer has left, whole or not.
    """

    def __init__(
        self,
        config: Config,
        supervisor: Supervisor,
        admission: Admission,
        principal: Principal,
        client: Client,
        turns: Turns,
        on_close: Callable[[Passage], None],
    ) -> None:
        self._config = config
        self._supervisor = supervisor
        self._admission = admission
        self._on_close = on_close
        self._client = client
        self._turn = Turn(turns)
        self._held = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._exchange: Exchange | None = None
        self._lent: Lease | None = None
        self._cut_by: LlamactlError | None = None
        self._was_cut = threading.Event()
        self._answered = False
        self._closed = False
        self.tail = Tail()
        self.principal = principal
        self.instance = ""
        self.path = ""
        self.carrier = "llamactl"
        self.result = ""
        self.started = time.monotonic()
        self.first_byte: float | None = None
        self.streams = False

    def __enter__(self) -> Passage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, ClientGone):
            self.result = "client_gone"
        elif error is not None:
            # Our errors have a word as their code, those of the web floor the status.
            self.result = str(getattr(error, "code", None) or "internal_error")
        if error is not None or not self._answered:
            self.close()

    def forward(self, call: Call) -> Answer:
        """Wait for the instance, send the call, and hand out the answer once its head is there.

        Raises ``ClientGone`` when nobody waits any more, and whatever a lease raises.
        """
        self._note(call)
        with self._turn:
            lease, exchange = self._reach(call)
            self._lent = lease
            try:
                head = exchange.send(
                    call.method,
                    call.target,
                    rules.to_instance(
                        call.headers,
                        f"{lease.host}:{lease.port}",
                        lease.api_key.reveal(),
                        len(call.body),
                    ),
                    call.body,
                )
            except Cut:
                raise self._cut_reason() from None
            except NotAnswered as error:
                # A dying process seems to take requests; who sent one is told what became of it.
                raise lease.ended(_UNNOTICED_SECONDS) or error from error
        if head.status == 401:
            raise UpstreamGone("The instance does not know llamactl's key for it")
        self.result = str(head.status)
        self.streams = rules.is_event_stream(head.headers)
        self._answered = True
        return Answer(
            head.status,
            rules.to_client(head.headers, exchange.length),
            self._body(exchange, call.target, self.streams),
        )

    def hand_over(self, call: Call, carrier: str) -> Lease:
        """Wait for the instance and leave the rest to ``carrier``, until someone calls ``close``.

        Raises what ``forward`` raises while it waits. Nothing here can cut the request any more.
        """
        self._note(call)
        self.carrier = carrier
        with self._turn:
            lease = self._lease(call)
        lease.leave_unseen()
        self._answered = True
        return lease

    def cut(self, error: LlamactlError) -> None:
        """End the request from another thread; its client is told ``error``."""
        with self._lock:
            self._cut_by = self._cut_by or error
            self._was_cut.set()
            exchange = self._exchange
        if exchange is not None:
            exchange.cut()

    def close(self) -> None:
        """Give everything back; a second time changes nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            self._held.close()
        finally:
            self._on_close(self)

    def _note(self, call: Call) -> None:
        self.instance = call.instance.name
        self.path = call.target.partition("?")[0]

    def _reach(self, call: Call) -> tuple[Lease, Exchange]:
        """A lease and a connection under it.

        An instance that died a moment ago still looks as if it ran. A request that never reached
        it waits with the others for its return.
        """
        deadline = time.monotonic() + _UNNOTICED_SECONDS
        while True:
            lease = self._lease(call)
            try:
                return lease, self._open(lease)
            except NotListening:
                self._held.close()
                if not call.wakes or time.monotonic() > deadline:
                    raise
            if self._is_over():
                raise self._cut_by or ClientGone()
            self._turn.end()
            self._was_cut.wait(_AGAIN_SECONDS)

    def _lease(self, call: Call) -> Lease:
        instance = self._supervisor.get(call.instance.name)
        if not call.wakes and instance.status != "running":
            raise InstanceNotRunning(
                f"{instance.name} is {instance.status}", hint="Start it first."
            )
        with contextlib.ExitStack() as waiting:
            if instance.status != "running":
                waiting.enter_context(self._admission.waiting_for(instance.id))
            try:
                lease = self._held.enter_context(
                    self._supervisor.lease(
                        instance.name,
                        timeout=self._config.instances.on_demand_start_timeout,
                        cancelled=self._gives_up,
                    )
                )
            except (MaxInstancesReached, InsufficientMemory) as error:
                # To whoever starts an instance this is a conflict; to whoever asks it, a matter
                # of time.
                raise InstanceNotRunning(error.message, hint=error.hint, retry_after=5) from error
            except Interrupted:
                raise (self._cut_by or ClientGone()) from None
        if lease.snapshot.id != call.instance.id:
            # Another one has its name by now, and nobody asked whether this one is allowed.
            raise no_model(call.instance.name)
        return lease

    def _open(self, lease: Lease) -> Exchange:
        timeout = self._config.gateway.read_timeout
        exchange = Exchange(lease.host, lease.port, self._client, timeout, self._turn.end)
        self._held.callback(exchange.close)
        with self._lock:
            self._exchange = exchange
            if self._cut_by is not None:
                exchange.cut()
        return exchange

    def _gives_up(self) -> bool:
        # Asked only of a request that waits for its instance, and before each time that it does.
        self._turn.end()
        return self._is_over()

    def _is_over(self) -> bool:
        return self._cut_by is not None or self._client.gone()

    def _cut_reason(self) -> LlamactlError:
        return self._cut_by or UpstreamGone("The request was ended")

    def _body(self, exchange: Exchange, target: str, is_stream: bool) -> Iterator[bytes]:
        try:
            # An empty first piece makes the web server send the headers now, not with the first
            # token.
            piece = exchange.ready()
            yield self._noted(piece)
            while piece := exchange.read():
                if not self._client.takes(len(piece)):
                    raise ClientGone
                yield self._noted(piece)
        except ClientGone:
            self._client_left()
            raise _broken() from None
        except (Cut, UpstreamGone) as error:
            told = self._cut_reason() if isinstance(error, Cut) else error
            self.result = told.code
            log.warning("an answer of %s broke off: %s", self.instance, told.details)
            if is_stream:
                if isinstance(error, Cut):
                    yield from self._rest_of_event(exchange)
                yield error_event(target, told, self.tail.at_boundary())
            self._client.hang_up()
            raise _broken() from None
        except GeneratorExit:
            # The web server could not write: the client left.
            self._client_left()
            raise
        finally:
            self.close()

    def _client_left(self) -> None:
        if not self.tail.is_complete():
            self.result = "client_gone"

    def _rest_of_event(self, exchange: Exchange) -> Iterator[bytes]:
        """What lacks of the event in which a cut came: behind half of one nothing is read."""
        while not self.tail.at_boundary() and (piece := exchange.rest()):
            if not self._client.takes(len(piece)):
                return
            yield self._noted(self.tail.to_boundary(piece))

    def _noted(self, piece: bytes) -> bytes:
        if piece:
            self.tail.add(piece)
            # A ping comes also from an instance whose model stands still, and before any token.
            if not is_ping(piece):
                if self.first_byte is None:
                    self.first_byte = time.monotonic() - self.started
                if self._lent is not None:
                    self._lent.passed_on()
        return piece


def _broken() -> ConnectionResetError:
    """What makes the web server drop the connection, so that no answer looks whole that is not.

    gunicorn takes it for a client that reset its connection: no last chunk, no trace in the log.
    """
    return ConnectionResetError(errno.ECONNRESET, "the answer is not whole")
