"""What pages show of instances."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamactl.errors import sentence_start
from llamactl.secret import MASK
from llamactl.sizes import size_text
from llamactl.web.texts import ago_text, moment_html
from llamactl.web.views import Button, Json

INSTANCE_TONES = {
    "stopped": "",
    "starting": "busy",
    "running": "good",
    "stopping": "busy",
    "restarting": "warn",
    "failed": "bad",
}
#: States with a process.
UP = frozenset({"starting", "running", "stopping"})
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
    "restarting": (("start", "Start now", "main"), STOP),
    "failed": (START, ("stop", "Dismiss", "")),
}
#: What a running instance is called that does not do its work.
UNWELL: Mapping[str, tuple[str, str, str]] = {
    "wedged": (
        "wedged",
        "bad",
        "It serves somebody and gets no further. Its log may tell why. Restart it.",
    ),
    "unresponsive": (
        "no answer",
        "warn",
        "It does not answer when asked how it is. Restart it if that lasts.",
    ),
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
    group: str
    memory: str
    busy: str
    last_used: str
    error: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    buttons: tuple[Button, ...]

    @property
    def moving(self) -> bool:
        """Whether this will look different in a moment."""
        return self.status in MOVING

    @property
    def deletable(self) -> bool:
        """Whether nothing of it runs."""
        return self.status in {"stopped", "failed"}

    @property
    def error_line(self) -> str:
        """The diagnosis in one line."""
        return self.error[0] if self.error else ""


@dataclass(frozen=True)
class GroupView:
    """Instances with one limit; ``name`` is empty for those without a group."""

    name: str
    said: str
    instances: tuple[InstanceView, ...]


@dataclass(frozen=True)
class InstancesView:
    """All of them, in their groups. ``summary`` counts them by status."""

    groups: tuple[GroupView, ...]
    summary: str

    @property
    def moving(self) -> bool:
        return any(instance.moving for group in self.groups for instance in group.instances)


@dataclass(frozen=True)
class LogView:
    """The last lines of a log; ``address`` is where a script reads on."""

    name: str
    lines: tuple[str, ...]
    address: str


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
    memory = instance.get("memory_bytes")
    label, tone, said = status, INSTANCE_TONES.get(status, ""), SAID.get(status, "")
    if status == "running":
        label, tone, said = UNWELL.get(instance.get("health") or "", (label, tone, said))
    return InstanceView(
        id=instance["id"],
        name=instance["name"],
        status=status,
        label=label,
        tone=tone,
        said=said,
        model=model,
        model_short=model.rpartition("/")[2] if model.startswith(("/", "~")) else model,
        aliases=", ".join(options.get("aliases") or ()),
        group=options.get("group") or "",
        memory=size_text(memory) if memory else "–",
        busy=_busy(instance),
        last_used=ago_text(last_used, now) if last_used else "never",
        error=tuple(sentence_start(instance.get("error") or "").splitlines()),
        facts=_instance_facts(instance, now),
        buttons=INSTANCE_BUTTONS.get(status, ()),
    )


def instances_view(
    instances: Sequence[InstanceView], limits: Mapping[str, int], running: int
) -> InstancesView:
    """All instances by group, those without one first, and in a group by name.

    ``limits`` are how many of a group may run, and ``running`` how many of all; below 0 any number.
    """
    counts = Counter(each.label for each in instances)
    said = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
    most = f"; {running} may run at a time" if running >= 0 else ""
    by_name = sorted(instances, key=lambda each: each.name.casefold())
    groups = []
    for name in sorted({each.group for each in instances}):
        members = tuple(each for each in by_name if each.group == name)
        up = sum(each.status in UP for each in members)
        limit = limits.get(name, -1)
        may = f", {limit} may run at a time" if limit >= 0 else ""
        groups.append(GroupView(name, f"{up} of {len(members)} up{may}", members))
    return InstancesView(tuple(groups), f"{said}{most}" if instances else "")


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


def _busy(instance: Json) -> str:
    """What it does at the moment, in a few words."""
    count, rate = instance.get("in_flight") or 0, instance.get("tokens_per_second")
    if not count:
        return ""
    words = f"{count} request" + ("" if count == 1 else "s")
    return f"{words}, {rate:.1f} tokens/s" if rate else words


def _instance_facts(instance: Json, now: float) -> tuple[tuple[str, str], ...]:
    def text(name: str) -> str:
        value = instance.get(name)
        return "–" if value is None else str(value)

    memory, rate = instance.get("memory_bytes"), instance.get("tokens_per_second")
    last_used = instance.get("last_used")
    facts = [
        ("Memory", size_text(memory) if memory else "–"),
        ("In flight", text("in_flight")),
        ("Requests", text("requests")),
        ("Tokens per second", "–" if rate is None else f"{rate:.1f}"),
        ("Health", text("health")),
        ("Crashes in a row", text("restarts")),
        ("Last used", ago_text(last_used, now) if last_used else "never"),
        ("Port", text("port")),
        ("Process", text("pid")),
        ("Created", moment_html(instance["created"])),
    ]
    if instance.get("exit_code") is not None:
        facts.insert(6, ("Exit code", text("exit_code")))
    return tuple(facts)
