"""What the form of a new instance begins with, so that a cached model runs as it stands."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamactl.errors import LlamactlError
from llamactl.instances.modelfiles import expand
from llamactl.instances.options import Options, is_reference
from llamactl.instances.presetfile import PresetFile, read_preset
from llamactl.models.opening import read_beginning
from llamactl.models.reference import ModelRef
from llamactl.models.snapshots import CachedModel, cached_model_json
from llamactl.web import services
from llamactl.web.pages.flag_lines import flag_lines
from llamactl.web.pages.instance_questions import BACKENDS
from llamactl.web.views import cached_model_view, instance_name_for

#: The contexts, in tokens, of which a new instance gets the largest that fits.
CONTEXTS = (4096, 8192, 16384, 32768)
_LARGEST_PRESET = 64 * 1024


@dataclass(frozen=True)
class PresetOffer:
    """The settings that the author of a cached model gave it, as lines, and what is left out."""

    path: str
    lines: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def starting_values(model: str, name: str) -> dict[str, str]:
    """What the fields of a new instance hold at first; ``model`` may be nothing."""
    config = services().config
    ticked = {
        "on_demand_start": config.instances.default_on_demand_start,
        "auto_restart": config.instances.default_auto_restart,
    }
    values = {box: "on" for box, on in ticked.items() if on}
    values |= {"backend_type": BACKENDS[0][0], "model": model, "name": name}
    cached = cached_model(model)
    if cached is None:
        return {**values, "name": free_name(name)}
    name = name or instance_name_for(cached.ref.repo_id, cached.ref.tag)
    mmproj = cached.first("mmproj")
    flags = {"model": model}
    if mmproj is not None and not is_reference(model):
        flags["mmproj"] = str(mmproj.path)
    ctx_size = services().supervisor.first_context(Options(flags), CONTEXTS)
    if ctx_size is not None:
        values["ctx_size"] = str(ctx_size)
    return {**values, **flags, "name": free_name(name)}


def free_name(name: str) -> str:
    """The name, or one like it, that no instance has."""
    taken = {each.name for each in services().supervisor.instances()}
    further = (f"{name[:46]}-{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], further) if each not in taken)


def cached_model(model: str) -> CachedModel | None:
    """The cached model that is meant by the path of its GGUF, or by its reference."""
    if not model:
        return None
    if is_reference(model):
        try:
            return services().cache.find(ModelRef.parse(model))
        except LlamactlError:
            return None
    path = expand(model)
    return next((each for each in services().cache.list() if str(each.gguf.path) == path), None)


def cached_models() -> Sequence[tuple[str, str]]:
    """Every cached model that can run: its path, its reference."""
    now = time.time()
    models = (cached_model_view(cached_model_json(each), now) for each in services().cache.list())
    return [(model.files[0].path, model.reference) for model in models if model.can_run]


def preset_offer(model: str) -> PresetOffer | None:
    """The preset of the cached model that was typed, if it came with one."""
    found = _preset(model)
    if found is None:
        return None
    path, preset = found
    lines = tuple(flag_lines({**preset.options}))
    return PresetOffer(path, lines, tuple(preset.left_out.items()))


def preset_options(model: str) -> Mapping[str, object]:
    """The settings of that preset, as ``backend_options``."""
    found = _preset(model)
    return found[1].options if found is not None else {}


def _preset(model: str) -> tuple[str, PresetFile] | None:
    cached = cached_model(model)
    file = cached.first("preset") if cached is not None else None
    if cached is None or file is None:
        return None
    try:
        text = read_beginning(file.path, _LARGEST_PRESET).decode("utf-8", "replace")
    except OSError:
        return None
    return str(file.path), read_preset(text, cached.ref.tag)
