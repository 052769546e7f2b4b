"""The memory that an instance's options ask for, by estimate."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llamactl.errors import InvalidRequest, LlamactlError
from llamactl.instances.admission import Demand
from llamactl.instances.modelfiles import ModelFiles, ResolveModel, expand, find_files, shards_of
from llamactl.instances.options import Options, is_reference
from llamactl.models.dimensions import Dimensions
from llamactl.models.fit import CACHE_TYPES, Device, Load, Machine, Need, estimate
from llamactl.models.gguf import read_header
from llamactl.models.remembered import Memory

logger = logging.getLogger(__name__)

#: As many layers as people write who mean all of them.
MANY_LAYERS = 99

#: What headers told, so that a start need not read through a long list of tokens again.
_told: Memory[Dimensions | None] = Memory()


def need_of_options(options: Options, resolve_model: ResolveModel) -> Need | None:
    """The memory that a start with these options takes; None for a model that is not here.

    Raises ``StartFailed`` for what can never be loaded.
    """
    return need_of(options, find_files(options, resolve_model), resolve_model)


def need_of(options: Options, files: ModelFiles, resolve_model: ResolveModel) -> Need | None:
    """The memory that these files take with these options; None for a model that is not here.

    A draft model counts as one of its own with the same context, an adapter as weights. Where
    llama-server looks for its model by itself, what is cached of that counts.
    """
    files = _with_cached(options, files, resolve_model)
    if files.model is None:
        return None
    load = load_of(options)
    need = _estimate(files.model, load, projector=_size(files.mmproj))
    adapters = sum(_size(path) for path in _paths(options, "lora"))
    need = replace(need, weights=need.weights + adapters)
    for path in _paths(options, "spec_draft_model"):
        draft = _estimate(path, load)
        need = replace(
            need,
            weights=need.weights + draft.weights,
            cache=_both(need.cache, draft.cache),
            compute=_both(need.compute, draft.compute),
        )
    return need


def demand_of(need: Need, options: Options, machine: Machine) -> Demand:
    """The same as admission weighs it: where it must lie on this machine, what need not stay."""
    pageable = need.weights if _maps(options) else 0
    layers = options.option("gpu_layers")
    if not machine.devices or machine.shares_memory:
        return Demand(need.total, pageable)
    used = devices_used(options, machine)
    if not used or layers == 0:
        return Demand(need.total, pageable, on_devices=0)
    among = None if used == machine.devices else tuple(device.name for device in used)
    # Laid on several devices it has buffers to compute in on each.
    total = need.total + (len(used) - 1) * (need.compute or 0)
    if isinstance(layers, str) and layers != "all":
        return Demand(total, pageable, among=among)
    # Of some layers nobody knows the size; with the experts elsewhere, nor of all.
    elsewhere = ("cpu_moe", "n_cpu_moe", "override_tensor", "tensor_split", "kv_offload")
    whole = layers == "all" or (isinstance(layers, int) and layers >= MANY_LAYERS)
    if whole and not any(options.option(key) is not None for key in elsewhere):
        return Demand(total, pageable, on_devices=total, among=among)
    return Demand(total, pageable, among=among)


def devices_used(options: Options, machine: Machine) -> tuple[Device, ...]:
    """The devices of a machine that llama.cpp uses with these options, in its order.

    Those that nobody knows here, such as another machine's, are left out; where only such are
    named, all count.
    """
    named = options.option("device")
    used = machine.devices
    if isinstance(named, tuple) and named:
        if named == ("none",):
            return ()
        by_name = {device.name.casefold(): device for device in machine.devices}
        known = [by_name[name.casefold()] for name in named if name.casefold() in by_name]
        used = tuple(known) or machine.devices
    if options.option("split_mode") == "none":
        chosen = options.option("main_gpu")
        number = chosen if isinstance(chosen, int) else 0
        # llama.cpp takes none where the number is less than nothing, and refuses one too large.
        used = () if number < 0 else used[number : number + 1] or used
    return used


def machine_for(options: Options, machine: Machine) -> Machine:
    """The machine as far as these options let llama.cpp use it."""
    if machine.shares_memory:
        return machine
    return replace(machine, devices=devices_used(options, machine))


def load_of(options: Options) -> Load:
    """How llama-server would load a model with these options."""
    usual = Load()

    def number(key: str, default: int) -> int:
        value = options.option(key)
        # llama-server refuses what is below nothing; here it would give memory back.
        return value if isinstance(value, int) and value >= 0 else default

    def cache_type(key: str, default: str) -> str:
        value = options.option(key)
        return value if isinstance(value, str) and value in CACHE_TYPES else default

    return Load(
        ctx_size=number("ctx_size", usual.ctx_size),
        cache_type_k=cache_type("cache_type_k", usual.cache_type_k),
        cache_type_v=cache_type("cache_type_v", usual.cache_type_v),
        ubatch_size=number("ubatch_size", usual.ubatch_size),
        parallel=number("parallel", 0) or None,
        flash_attn=options.option("flash_attn") != "off",
        swa_full=options.option("swa_full") is True,
    )


def _with_cached(options: Options, files: ModelFiles, resolve_model: ResolveModel) -> ModelFiles:
    """With the model of ``hf_repo`` where that is cached."""
    repo = options.text_option("hf_repo")
    if files.model is not None or not repo or not is_reference(repo) or options.option("hf_file"):
        return files
    try:
        resolved = resolve_model(repo)
    except LlamactlError:
        return files
    projector = resolved.mmproj if options.option("mmproj_auto") is not False else None
    return replace(files, model=resolved.path, mmproj=files.mmproj or projector)


def _estimate(model: Path, load: Load, *, projector: int = 0) -> Need:
    weights = sum(_size(path) for path in shards_of(model))
    return estimate(_dimensions(model), weights, load, projector=projector)


def _dimensions(model: Path) -> Dimensions | None:
    path = os.path.realpath(model)
    known = _told.get(path)
    if known is not None:
        return known
    try:
        found = read_header(Path(path)).dimensions
    except (InvalidRequest, OSError) as error:
        logger.info("%s tells nothing of its memory: %s", model, error)
        return None
    _told.keep(path, found, [path])
    return found


def _maps(options: Options) -> bool:
    """Whether the weights stay in their file, of which the system keeps what it has room for."""
    mode = options.option("load_mode")
    held = options.option("mlock") is True or options.option("mmap") is False
    return not held and options.option("direct_io") is not True and mode in (None, "auto", "mmap")


def _paths(options: Options, key: str) -> Iterator[Path]:
    value = options.option(key)
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(each, str):
            yield Path(expand(each))


def _both(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


def _size(path: Path | None) -> int:
    return path.stat().st_size if path is not None and path.exists() else 0
