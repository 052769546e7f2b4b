"""The web floor: Flask, and Flask only here. It parses, makes one call, and renders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from flask import current_app

if TYPE_CHECKING:
    from llamactl.access.audit import Audit
    from llamactl.access.keys import Keys
    from llamactl.access.sessions import Sessions
    from llamactl.config import Config
    from llamactl.downloads.offers import Offers
    from llamactl.downloads.queue import DownloadQueue
    from llamactl.gateway import Gateway
    from llamactl.hub.client import HubClient
    from llamactl.instances.supervisor import Supervisor
    from llamactl.models.cache import ModelCache


class Services(Protocol):
    """What the web floor asks for its answers; the application puts a running one in place."""

    @property
    def config(self) -> Config: ...
    @property
    def cache(self) -> ModelCache: ...
    @property
    def hub(self) -> HubClient: ...
    @property
    def downloads(self) -> DownloadQueue: ...
    @property
    def offers(self) -> Offers: ...
    @property
    def supervisor(self) -> Supervisor: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def sessions(self) -> Sessions: ...
    @property
    def audit(self) -> Audit: ...
    @property
    def gateway(self) -> Gateway: ...
    @property
    def started_at(self) -> float: ...


def services() -> Services:
    """The services behind the application that answers this request."""
    return cast(Services, current_app.extensions["llamactl"])
