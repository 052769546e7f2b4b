"""What pages show of instances."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamactl.web.config_shown import MASK
from llamactl.web.texts import ago_text, moment_text, sentence_start
from llamactl.web.views import Button, Json

INSTANCE_TONES = {
    "stopped": "",
    "starting": "busy",
    "running": "good",
    "stopping": "busy",
    "restarting": "warn",
    "failed": "bad",
}
#: States that change by themselves soon.
MOVING = frozenset({"starting", "stopping", "restarting"})
START: Button = ("start", "Start", "main")
STOP: Button = ("stop", "Stop", "")
RESTART: Button = ("restart", "Restart", "")
INSTANCE_BUTTONS: Mapping[str, tuple[Button, ...]] = {
    "stopped": (START,),
    "starting": (STOP,),
    "running": (RESTART, STOP),
    "stopping": (),
    "restarting": (STOP,),
    "failed": (START, ("stop", "Dismiss", "")),
}
SAID = {
    "starting": "The model is being loaded.",
    "stopping": "Running answers end first.",
    "restarting": "It ended by itself and is started again after a pause.",
}


@dataclass(frozen=True)
class InstanceView:
    """One instance. ``error`` is its diagnosis, the first line the main one."""

    id: int
    name: str
    status: str
    label: str
    tone: str
    said: str
    model: str
    model_short: str
    aliases: str
    port: int | None
    last_used: str
    error: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    buttons: tuple[Button, ...]

    @property
    def moving(self) -> bool:
        """Whether this will look different in a moment."""
        return self.status in MOVING

    @property
    def error_line(self) -> str:
        """The diagnosis in one line."""
        return self.error[0] if self.error else ""


@dataclass(frozen=True)
class InstancesView:
    instances: tuple[InstanceView, ...]

    @property
    def moving(self) -> bool:
        return any(instance.moving for instance in self.instances)


@dataclass(frozen=True)
class LogView:
    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class CallsView:
    """Commands that call an instance, ready to be copied."""

    curl: str
    openai: str


def instance_view(instance: Json, now: float) -> InstanceView:
    """``instance`` as the REST interface shows it, at unix seconds ``now``."""
    status = instance["status"]
    options = instance["options"]
    model = model_of(options.get("backend_options") or {})
    last_used = instance.get("last_used")
    return InstanceView(
        id=instance["id"],
        name=instance["name"],
        status=status,
        label=status,
        tone=INSTANCE_TONES.get(status, ""),
        said=SAID.get(status, ""),
        model=model,
        model_short=model.rpartition("/")[2] if model.startswith(("/", "~")) else model,
        aliases=", ".join(options.get("aliases") or ()),
        port=instance.get("port"),
        last_used=ago_text(last_used, now) if last_used else "never",
        error=tuple(sentence_start(instance.get("error") or "").splitlines()),
        facts=_instance_facts(instance, now),
        buttons=INSTANCE_BUTTONS.get(status, ()),
    )


def model_of(backend_options: Mapping[str, Any]) -> str:
    """The model of an instance in a few words."""
    if backend_options.get("model"):
        return str(backend_options["model"])
    if backend_options.get("hf_repo"):
        file = backend_options.get("hf_file")
        return f"{backend_options['hf_repo']}" + (f" ({file})" if file else "") + " from the hub"
    return "every cached model (router mode)"


def options_text(options: Json) -> str:
    """Options that say something, as JSON; what an environment variable holds is not shown."""
    environment = dict.fromkeys(options.get("environment") or {}, MASK)
    said = {**options, "environment": environment}
    said = {name: value for name, value in said.items() if value not in (None, [], {})}
    return json.dumps(said, indent=2, ensure_ascii=False)


def calls_view(name: str, base_url: str) -> CallsView:
    """How to ask the instance ``name`` of the server at ``base_url`` (without a slash)."""
    body = {"model": name, "messages": [{"role": "user", "content": "Hello"}]}
    curl = (
        f"curl {base_url}/v1/chat/completions \\\n"
        '  -H "Authorization: Bearer YOUR_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{json.dumps(body)}'"
    )
    python = (
        "from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}/v1", api_key="YOUR_KEY")\n'
        "answer = client.chat.completions.create(\n"
        f'    model="{name}",\n'
        '    messages=[{"role": "user", "content": "Hello"}],\n'
        ")\n"
        "print(answer.choices[0].message.content)"
    )
    return CallsView(curl, python)


def _instance_facts(instance: Json, now: float) -> tuple[tuple[str, str], ...]:
    def text(name: str) -> str:
        value = instance.get(name)
        return "–" if value is None else str(value)

    last_used = instance.get("last_used")
    facts = [
        ("Health", text("health")),
        ("Port", text("port")),
        ("Process", text("pid")),
        ("Restarts", text("restarts")),
        ("In flight", text("in_flight")),
        ("Last used", ago_text(last_used, now) if last_used else "never"),
        ("Created", moment_text(instance["created"])),
    ]
    if instance.get("exit_code") is not None:
        facts.insert(4, ("Exit code", text("exit_code")))
    return tuple(facts)
