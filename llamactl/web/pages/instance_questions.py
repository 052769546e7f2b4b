"""What the form of an instance asks, in plain words; an empty answer leaves the default."""

from __future__ import annotations

from collections.abc import Sequence

from llamactl.config import Config
from llamactl.models.fit import CACHE_TYPES
from llamactl.secret import MASK
from llamactl.web.pages.fields import Field

BACKENDS = (("llama_cpp", "llama.cpp"),)


def what() -> Sequence[Field]:
    """What runs, and under which name."""
    return (
        Field(
            "name",
            "Name",
            help="What clients ask for as the model. Letters, digits, dot, dash, underscore.",
            required=True,
            width="half",
        ),
        Field(
            "backend_type",
            "Backend type",
            "select",
            help="The program that runs the model.",
            choices=BACKENDS,
            width="half",
        ),
        Field(
            "model",
            "Model",
            help="The full path of a GGUF file, or org/model-name:tag of a cached model. Left "
            "empty, llama-server is a router: it offers every cached model and loads what is "
            "asked for.",
            width="wide",
        ),
    )


def size() -> Sequence[Field]:
    """What decides how much memory it takes, and how fast it is."""
    others = [name for name in CACHE_TYPES if name != "f16"]
    cache_types = [("", "automatic (f16)"), *((name, name) for name in others)]
    return (
        Field(
            "ctx_size",
            "Context size",
            "number",
            help="Tokens that prompt and answer may have together; the requests at a time share "
            "it. Empty: as much as the model was made for.",
            placeholder="the model's own",
            stops=("", *(str(1024 << power) for power in range(9))),
            width="half",
        ),
        Field(
            "gpu_layers",
            "GPU layers",
            "number",
            help="How many layers of the model the GPU keeps; 0: none. Empty: as many as fit.",
            placeholder="as many as fit",
            stops=("", *(str(layers) for layers in range(101))),
            width="half",
        ),
        Field(
            "parallel",
            "Parallel",
            "number",
            help="Requests that are answered at a time; the others wait.",
            placeholder="automatic",
            stops=("", *(str(slots) for slots in range(1, 17))),
            width="half",
        ),
        Field(
            "threads",
            "Threads",
            "number",
            help="Of the processor, for layers that are not on the GPU.",
            placeholder="all cores",
            width="half",
        ),
        Field(
            "flash_attn",
            "Flash attention",
            "select",
            help="Faster, and less memory; a few GPUs cannot do it.",
            choices=(("", "automatic"), ("on", "on"), ("off", "off")),
            width="third",
        ),
        Field(
            "cache_type_k",
            "Type of cached keys",
            "select",
            help="q8_0 halves the context's memory at little loss.",
            choices=cache_types,
            width="third",
        ),
        Field(
            "cache_type_v",
            "Type of cached values",
            "select",
            help="Anything but f16 wants flash attention.",
            choices=cache_types,
            width="third",
        ),
    )


def requests(config: Config) -> Sequence[Field]:
    """Who asks it, and when it runs."""
    return (
        Field(
            "aliases",
            "Aliases",
            help="Further names that clients may ask for, with commas between.",
            width="wide",
        ),
        Field(
            "on_demand_start",
            "Start with the first request",
            "check",
            help="Else a request to the stopped instance is refused.",
            width="half",
        ),
        Field(
            "idle_timeout",
            "Idle timeout",
            "number",
            help="Minutes without a request until it is stopped; 0: never.",
            placeholder=f"{config.instances.default_idle_timeout:g}",
            width="half",
        ),
    )


def more(config: Config) -> Sequence[Field]:
    """All the rest."""
    defaults = config.instances
    fields = [
        Field(
            "auto_restart",
            "Restart when it ends by itself",
            "check",
            help="After a crash, with a pause that grows.",
            width="wide",
        ),
        Field(
            "max_restarts",
            "Restarts at most",
            "number",
            help="In a row; a minute without a crash forgets them.",
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
            help="llama.cpp downloads and loads it itself, instead of Model: org/model-name:tag.",
            width="half",
        ),
        Field(
            "hf_file",
            "Hub file",
            help="One file of that repository, where its name is not told by the tag.",
            width="half",
        ),
        Field(
            "mmproj",
            "Multimodal projector",
            help="The full path of the GGUF with which the model sees or hears. A cached model by "
            "reference has its own without this.",
            width="wide",
        ),
        Field(
            "environment",
            "Environment",
            "lines",
            help=f"NAME=VALUE, one a line. A value that is shown as {MASK} stays as it is.",
            width="wide",
        ),
        Field(
            "extra_args",
            "Extra arguments",
            "lines",
            help="Further flags of llama-server, one a line.",
            placeholder="--batch-size 1024",
            width="wide",
        ),
        Field(
            "preset_ini",
            "Preset (INI)",
            "lines",
            help="For a router only: a section for each model, with its flags.",
            width="wide",
        ),
    ]
    if config.security.allow_command_override:
        fields.append(
            Field(
                "command_override",
                "Command instead of llama-server",
                help="A program that takes llama-server's flags.",
                width="wide",
            )
        )
    return fields
