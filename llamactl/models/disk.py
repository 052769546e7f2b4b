"""Changes on disk that survive a power cut, and that no planted link leads astray."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from llamactl.errors import CacheNotWritable, InsufficientSpace

#: What systems answer where a file system has no hard links, or no more of them, or where the
#: file belongs to someone else.
_NO_LINK = frozenset(
    getattr(errno, name)
    for name in ("EXDEV", "EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EINVAL")
    if hasattr(errno, name)
)

#: How a name begins that lives for a moment only; one that stays was left by a killed process.
TEMPORARY_PREFIX = ".llamactl-"

_FOLDER_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_DIRECTORY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
)
_HAS_DIR_FD = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")


def sync_dir(path: Path) -> None:
    """Make the names in a folder durable. Windows has no such call, and needs none."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_dirs(path: Path, root: Path) -> None:
    """Make ``path`` and what is missing above it, down from ``root``, all of it durable.

    Raises ``NotADirectoryError`` when a link stands where a folder below ``root`` should be.
    """
    root.mkdir(parents=True, exist_ok=True)
    current = root
    for part in path.relative_to(root).parts:
        parent, current = current, current / part
        try:
            current.mkdir()
        except FileExistsError:
            check_folder(current)
        else:
            sync_dir(parent)


def check_folder(path: Path) -> None:
    """Raises ``NotADirectoryError`` when a link or a file stands where a folder should be."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(path))


@contextlib.contextmanager
def named_errors(root: Path) -> Iterator[None]:
    """Turn what the disk refuses into the errors that say what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}:
            raise InsufficientSpace(
                f"The disk that holds {root} is full", hint="Free some space, then retry."
            ) from error
        raise CacheNotWritable(
            f"{error.filename or root} cannot be written: {error.strerror}",
            hint=f"Check the owner and the permissions of {root}, or set "
            "backends.llama-cpp.cache_dir and .hub_dir to directories that can be written.",
        ) from error


def write_file(path: Path, content: bytes, scratch: Path | None = None) -> None:
    """Give ``path`` this content, whole or not at all, durably.

    ``scratch`` is the folder for the temporary name, where that would disturb beside ``path``.
    """
    with temporary_name(scratch or path.parent) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    sync_dir(path.parent)


def hard_link(source: Path, path: Path, scratch: Path) -> bool:
    """Make ``path`` a second name of ``source``'s bytes; False where the system refuses that."""
    with temporary_name(scratch) as temporary:
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        # Where both are names of one file already, rename does nothing and leaves the first.
        temporary.replace(path)
    return True


def symlink(target: str, path: Path, scratch: Path) -> bool:
    """Make ``path`` a link that holds ``target``; False where the system refuses that."""
    with temporary_name(scratch) as temporary:
        try:
            temporary.symlink_to(target)
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        temporary.replace(path)
    return True


def move(source: Path, path: Path) -> None:
    """Give a file its final name, also on another file system."""
    try:
        source.replace(path)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    with temporary_name(path.parent) as temporary:
        shutil.copyfile(source, temporary)
        shutil.copymode(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    source.unlink()


@contextlib.contextmanager
def temporary_name(folder: Path) -> Iterator[Path]:
    """A name in ``folder`` that nobody else uses; nothing is left there."""
    owner = f"{_process_space()}.{os.getpid()}"
    temporary = folder / f"{TEMPORARY_PREFIX}{owner}.{secrets.token_hex(8)}.incomplete"
    try:
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def sweep(folder: Path, older_than: float) -> None:
    """Remove temporary names that a killed process left in ``folder``.

    At once where it can be told that their process has ended; where that cannot be told (another
    machine or container may share the folder) those that are older than ``older_than``, unix time.
    """
    with contextlib.suppress(FileNotFoundError):
        for path in folder.glob(f"{TEMPORARY_PREFIX}*.incomplete"):
            with contextlib.suppress(FileNotFoundError):
                if _is_orphan(path.name) or path.lstat().st_ctime < older_than:
                    path.unlink()


def _is_orphan(name: str) -> bool:
    space, _, rest = name.removeprefix(TEMPORARY_PREFIX).partition(".")
    pid = rest.partition(".")[0]
    if not space or space != _process_space() or not pid.isdecimal():
        return False
    return not Path("/proc", pid).exists()


@functools.cache
def _process_space() -> str:
    """A word for where process numbers are ours: this boot and container; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return ""
    return hashlib.sha256(boot + str(namespace).encode()).hexdigest()[:12]


def remove_file(root: Path, path: Path) -> bool:
    """Remove one name below ``root``, a link itself rather than what it points to.

    Whether there was one. A link in place of a folder on the way counts as nothing there, so
    that no path leads out of ``root``.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), _folder(root, path) as folder:
        os.unlink(path if folder is None else path.name, dir_fd=folder)
        return True
    return False


def remove_empty_dir(root: Path, path: Path) -> bool:
    """Remove a folder below ``root`` if it is there and empty. Whether it was removed."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), _folder(root, path) as folder:
        try:
            os.rmdir(path if folder is None else path.name, dir_fd=folder)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        else:
            return True
    return False


def remove_tree(root: Path, path: Path) -> None:
    """Remove a folder below ``root`` with what it holds. No link is followed."""
    if path.is_symlink():
        return
    for folder, _folders, names in os.walk(path, topdown=False):
        for name in names:
            remove_file(root, Path(folder, name))
        remove_empty_dir(root, Path(folder))


@contextlib.contextmanager
def _folder(root: Path, path: Path) -> Iterator[int | None]:
    """The folder of ``path``, opened from ``root`` down without following a link.

    None where the system cannot do that; then every folder was looked at instead.
    """
    parts = path.parent.relative_to(root).parts
    if not _HAS_DIR_FD:
        for folder in [root.joinpath(*parts[: count + 1]) for count in range(len(parts))]:
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder))
        yield None
        return
    descriptor = os.open(root, _FOLDER_FLAGS & ~getattr(os, "O_NOFOLLOW", 0))
    try:
        for part in parts:
            below = os.open(part, _FOLDER_FLAGS, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, "a link", str(path.parent)) from error
        raise
    finally:
        os.close(descriptor)
