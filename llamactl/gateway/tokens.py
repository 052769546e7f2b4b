"""What instances themselves count, for requests whose answers llamactl does not see."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from llamactl.gateway.asking import ask
from llamactl.gateway.usage import Usage
from llamactl.secret import Secret

if TYPE_CHECKING:
    from llamactl.instances.snapshot import InstanceSnapshot

_LINE = re.compile(
    rb"^llamacpp:(prompt_tokens_total|tokens_predicted_total) ([0-9.e+]{1,30})$", re.MULTILINE
)


class InstanceTokens:
    """The keys of the instances that nginx was sent to, and what these count. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str, tuple[int, Secret]] = {}

    def note(self, instance: str, port: int, key: Secret) -> None:
        """Remember how an instance may be asked."""
        with self._lock:
            self._keys[instance] = (port, key)

    def counts(self, instances: Iterable[InstanceSnapshot]) -> Mapping[str, Usage]:
        """Tokens since their start, of those that run and tell."""
        with self._lock:
            known = dict(self._keys)
        found: dict[str, Usage] = {}
        for instance in instances:
            port, key = known.get(instance.name, (None, None))
            if instance.status != "running" or port is None or port != instance.port:
                continue
            told = ask(port, "/metrics", key)
            if told is not None:
                counts = {match[1]: int(float(match[2])) for match in _LINE.finditer(told)}
                found[instance.name] = Usage(
                    counts.get(b"prompt_tokens_total", 0), counts.get(b"tokens_predicted_total", 0)
                )
        return found
