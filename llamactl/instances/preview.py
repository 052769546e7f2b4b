"""What an instance with certain options would run, and what it would take. Nothing is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llamactl.errors import InvalidRequest, LlamactlError, StartFailed, UnsupportedFlag
from llamactl.instances.admission import Site, site_of
from llamactl.instances.commandline import Launch
from llamactl.instances.modelfiles import ModelFiles, find_files, still_to_fetch
from llamactl.instances.needs import demand_of, machine_for, need_of
from llamactl.instances.options import Options
from llamactl.instances.run import HOST, preset_path, program_of, words_of
from llamactl.instances.shared import Shared
from llamactl.instances.snapshot import sentences
from llamactl.models.fit import Machine, Need, Verdict, judge

#: What stands for the port, which only the start reserves.
PORT = "PORT"


@dataclass(frozen=True)
class Preview:
    """``words`` is the command line as a start would make it, with ``PORT`` for its port.

    ``need`` is None where it cannot be told; ``site`` is where that lies now, None where nothing is
    known, or where it does not fit: ``verdict`` tells them apart. ``obstacle`` is why a start would
    fail, if it would.
    """

    words: tuple[str, ...]
    need: Need | None
    machine: Machine
    obstacle: LlamactlError | None = None
    site: Site | None = None
    verdict: Verdict | None = None


def make_preview(options: Options, name: str, shared: Shared) -> Preview:
    """The command line and the memory of an instance ``name`` with these options.

    Raises ``UnsupportedFlag`` for a flag that the embedded llama.cpp does not honour.
    """
    whole = shared.room.look()
    machine = machine_for(options, whole)
    try:
        files = find_files(options, shared.resolve_model)
        words = _words(options, name, files, shared)
    except StartFailed as error:
        return Preview((), None, machine, error)
    need = need_of(options, files, shared.resolve_model)
    if need is None:
        return Preview(words, None, machine)
    with shared.lock:
        free = shared.room.free()
        # One that runs already gives back what it holds before it starts with other options.
        own = shared.room.held_by(name)
    site = None if free is None else site_of(demand_of(need, options, whole), free + own)
    return Preview(words, need, machine, None, site, judge(need, machine))


def warnings_of(options: Options, shared: Shared) -> list[str]:
    """What a start with these options would fail or be held up by as things are now, in sentences.

    They may be saved all the same: what is missing can still come.
    """
    try:
        files = find_files(options, shared.resolve_model)
        _words(options, "NAME", files, shared)
    except (StartFailed, UnsupportedFlag, InvalidRequest) as error:
        return [sentences(error.message, error.hint)]
    return still_to_fetch(options, shared.resolve_model)


def first_context(options: Options, contexts: Sequence[int], shared: Shared) -> int | None:
    """The largest of these contexts with which the model fits this machine now, else the smallest.

    In tokens, and none beyond the model's own. None where the memory that it takes is not known.
    """
    try:
        files = find_files(options, shared.resolve_model)
    except StartFailed:
        return None

    def need_with(ctx_size: int) -> Need | None:
        flags = {**options.backend_options, "ctx_size": ctx_size}
        return need_of(replace(options, backend_options=flags), files, shared.resolve_model)

    own = need_with(0)
    if own is None or not own.whole:
        return None
    machine = machine_for(options, shared.room.look())
    largest_first = sorted({min(each, own.ctx_size) for each in contexts}, reverse=True)
    for ctx_size in largest_first:
        need = need_with(ctx_size)
        if need is not None and judge(need, machine).fits:
            return ctx_size
    return largest_first[-1]


def _words(options: Options, name: str, files: ModelFiles, shared: Shared) -> tuple[str, ...]:
    launch = Launch(
        HOST,
        0,
        None if files.model is None else str(files.model),
        None if files.mmproj is None else str(files.mmproj),
        models_preset=str(preset_path(shared.config, name)) if options.preset_ini else None,
        metrics=shared.config.server.accel is not None,
    )
    words = words_of(program_of(options, shared), options, name, launch, shared)
    return (*words[:-1], PORT)
