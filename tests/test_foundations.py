"""Locks, secrets, errors and the folders of the assets."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamactl import assets, errors
from llamactl.locks import FileLock
from llamactl.secret import Secret


def all_errors(root: type[errors.LlamactlError]) -> Iterator[type[errors.LlamactlError]]:
    yield root
    for child in root.__subclasses__():
        yield from all_errors(child)


def test_a_lock_has_one_holder_and_names_it(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "a.lock"), FileLock(tmp_path / "a.lock")
    assert second.holder() == {}
    assert first.acquire()
    assert second.holder() == {"pid": None}
    first.write_note(pid=7, url="http://127.0.0.1:1")
    assert not second.acquire()
    assert second.holder() == {"pid": 7, "url": "http://127.0.0.1:1"}
    first.release()
    assert second.holder() == {}
    assert second.acquire()
    second.release()


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    code = (
        "import os, pathlib, sys; from llamactl.locks import FileLock; "
        "assert FileLock(pathlib.Path(sys.argv[1])).acquire(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    lock = FileLock(path)
    assert lock.acquire()
    lock.release()


def test_a_lock_is_not_inherited_by_programs(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "a.lock")
    assert lock.acquire()
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        lock.release()
        assert lock.acquire()
        lock.release()
    finally:
        child.kill()
        child.wait()


def test_only_the_holder_writes_the_note(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        FileLock(tmp_path / "a.lock").write_note(pid=1)


def test_a_secret_does_not_show() -> None:
    secret = Secret("password")
    for shown in (str(secret), repr(secret), f"{secret}", f"{secret!r}"):
        assert "password" not in shown
    assert secret.reveal() == "password"
    assert secret == Secret("password")
    assert secret != Secret("other")


def test_an_error_reads_as_sentences_and_says_what_to_do() -> None:
    error = errors.GatedRepo("org/name is gated", hint="Accept the licence on its page")
    assert error.details == "org/name is gated. Accept the licence on its page."
    assert str(error) == error.details


def test_every_error_has_a_code_and_stands_in_the_drawing() -> None:
    assert errors.__doc__ is not None
    for error in all_errors(errors.LlamactlError):
        if error.__module__ != errors.__name__:
            continue  # a room's own, which the room's tests look at
        assert error.code.replace("_", "").isalpha() and error.code.islower(), error
        assert error.__name__ in errors.__doc__, error


def test_templates_and_static_files_are_found() -> None:
    assert (assets.templates_dir() / "base.html").is_file()
    assert (assets.static_dir() / "llamactl.css").is_file()


def test_whoever_locks_first_makes_the_folder_for_nobody_else(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        lock = FileLock(tmp_path / "share" / "data" / "server.lock")
        assert lock.acquire()
    finally:
        os.umask(before)
    assert stat.S_IMODE(lock.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
    lock.release()
