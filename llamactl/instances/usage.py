"""Which instances use which files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from llamactl.errors import LlamactlError
from llamactl.instances.modelfiles import ResolveModel, find_files
from llamactl.instances.options import Options


def users_of(
    paths: Sequence[Path],
    alive: Iterable[tuple[str, Options, tuple[Path, ...]]],
    resolve_model: ResolveModel,
) -> list[str]:
    """The names of those that use one of ``paths``, under whatever name the file has.

    An instance that is only being started has no files yet; those that its options mean count.
    """
    wanted = {identity for path in paths for identity in _identities(path)}
    users = []
    for name, options, files in alive:
        if not files:
            with contextlib.suppress(LlamactlError):
                files = find_files(options, resolve_model).all
        used = {identity for path in files for identity in _identities(path)}
        if used & wanted or _reads_repo(options, paths):
            users.append(name)
    return users


def _identities(path: Path) -> Iterable[object]:
    """What tells a file: its path, and where it exists its inode, which links share."""
    yield str(path.absolute())
    with contextlib.suppress(OSError):
        status = path.stat()
        yield (status.st_dev, status.st_ino)


def _reads_repo(options: Options, paths: Sequence[Path]) -> bool:
    """Whether llama-server itself reads these files from the Hub cache, by the repo's name."""
    repo = options.text_option("hf_repo")
    if repo is None:
        return False
    org, _, rest = repo.partition("/")
    name = rest.partition(":")[0]
    folder = f"models--{org}--{name}"
    return any(folder in path.parts or path.name.startswith(f"{org}_{name}_") for path in paths)
