"""The fields of an instance's form: how they are called, what they hold, what is wrong there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llamactl.config import Config
from llamactl.errors import InstanceExists, InvalidInstanceName, LlamactlError, UnsupportedBackend
from llamactl.web.config_shown import MASK
from llamactl.web.pages.fields import Field

Typed = Mapping[str, str]
Choices = Sequence[tuple[str, str]]
BACKENDS = (("llama_cpp", "llama.cpp"),)


@dataclass(frozen=True)
class InstanceForm:
    """The fields that everyone sees, and those behind "More options"."""

    first: Sequence[Field]
    more: Sequence[Field]

    @property
    def more_open(self) -> bool:
        """Whether something behind "More options" is wrong and must be seen."""
        return any(field.wrong for field in self.more)

    def named(self) -> frozenset[str]:
        """The names of all fields."""
        return frozenset(field.name for field in (*self.first, *self.more))


def empty_form(config: Config) -> InstanceForm:
    """The fields without values; their texts say what an empty one means."""
    defaults = config.instances
    first = (
        Field(
            "name",
            "Name",
            help="Letters, digits, dot, dash, underscore.",
            required=True,
            width="half",
        ),
        Field("backend_type", "Backend type", "select", choices=BACKENDS, width="half"),
        Field(
            "model",
            "Model",
            help="The full path of a GGUF file, or org/model-name:tag of a cached model.",
            width="wide",
        ),
        Field("ctx_size", "Context size", "number", help="Tokens.", placeholder="the model's own"),
        Field("gpu_layers", "GPU layers", "number", placeholder="as many as fit"),
        Field("threads", "Threads", "number", placeholder="all cores"),
        Field(
            "parallel", "Parallel", "number", help="Requests at a time.", placeholder="automatic"
        ),
        Field(
            "aliases",
            "Aliases",
            help="Further names that clients may ask for, with commas between.",
            width="wide",
        ),
        Field("on_demand_start", "Start with the first request", "check", width="wide"),
        Field(
            "idle_timeout",
            "Idle timeout",
            "number",
            help="Minutes without a request until it is stopped; 0: never.",
            placeholder=f"{defaults.default_idle_timeout:g}",
            width="half",
        ),
        Field(
            "extra_args",
            "Extra arguments",
            "lines",
            help="Flags of llama-server, one a line.",
            placeholder="--cache-type-k q8_0",
            width="wide",
        ),
    )
    return InstanceForm(first, _more(config))


def shown(form: InstanceForm, values: Typed) -> InstanceForm:
    """The form with these values in its fields."""

    def fill(fields: Sequence[Field]) -> Sequence[Field]:
        return [replace(field, value=values.get(field.name, "")) for field in fields]

    return InstanceForm(fill(form.first), fill(form.more))


def with_models(form: InstanceForm, models: Choices) -> InstanceForm:
    """The form whose field Model suggests the cached ones: (path, name)."""
    first = [
        replace(field, choices=models) if field.name == "model" else field for field in form.first
    ]
    return InstanceForm(first, form.more)


def told(form: InstanceForm, error: LlamactlError) -> tuple[InstanceForm, LlamactlError | None]:
    """The form with the error beside its field, or with the error that belongs to none."""
    culprit = _culprit(form, error)
    if culprit is None:
        return form, error

    def mark(fields: Sequence[Field]) -> Sequence[Field]:
        return [
            replace(field, wrong=error.details) if field.name == culprit else field
            for field in fields
        ]

    return InstanceForm(mark(form.first), mark(form.more)), None


def _more(config: Config) -> Sequence[Field]:
    defaults = config.instances
    fields = [
        Field("auto_restart", "Restart when it ends by itself", "check", width="wide"),
        Field(
            "max_restarts",
            "Restarts at most",
            "number",
            placeholder=str(defaults.default_max_restarts),
            width="half",
        ),
        Field(
            "restart_delay",
            "Restart delay",
            "number",
            help="Seconds; it grows with each try.",
            placeholder=f"{defaults.default_restart_delay:g}",
            width="half",
        ),
        Field("group", "Group", help="For limits that several instances share.", width="half"),
        Field(
            "hf_repo",
            "Hub repository",
            help="llama.cpp loads it itself, instead of Model.",
            width="half",
        ),
        Field("hf_file", "Hub file", width="half"),
        Field("mmproj", "Multimodal projector", help="The full path of its GGUF.", width="wide"),
        Field(
            "environment",
            "Environment",
            "lines",
            help=f"NAME=VALUE, one a line. A value that is shown as {MASK} stays as it is.",
            width="wide",
        ),
        Field("preset_ini", "Preset (INI)", "lines", width="wide"),
    ]
    if config.security.allow_command_override:
        fields.append(Field("command_override", "Command instead of llama-server", width="wide"))
    return fields


def _culprit(form: InstanceForm, error: LlamactlError) -> str | None:
    if isinstance(error, InvalidInstanceName | InstanceExists):
        return "name"
    if isinstance(error, UnsupportedBackend):
        return "backend_type"
    parts = str(getattr(error, "field", None) or "").split(".")
    return next((part for part in parts if part in form.named()), None)
