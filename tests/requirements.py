"""What a test needs of the machine beyond the package itself.

A test names what it needs; where that is missing it is skipped with the reason. In CI, where
``.ci/run`` installs all of it, the same is a failure: a green run must not hide a missing step.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

_ALSO_IN = "/usr/local/sbin:/usr/sbin:/sbin"
_HOW_TO_GET = {
    "aria2c": "apt install aria2",
    "chromium": "apt install chromium",
    "curl": "apt install curl",
    "llama-server": "set LLAMACTL_TEST_LLAMA_SERVER to its path, or put it on PATH",
    "nginx": "apt install nginx-light",
}


def require(program: str) -> str:
    """The full path of a program; without it the test is skipped, in CI failed."""
    found = _llama_server() if program == "llama-server" else _find(program)
    return found or _missing(f"{program} is not on this machine", _HOW_TO_GET.get(program, ""))


def require_module(name: str) -> None:
    """Go on only where the Python package ``name`` can be imported."""
    if importlib.util.find_spec(name) is None:
        _missing(f"the Python package {name} is not installed", "make test installs it")


def in_own_namespace(script: str) -> list[str]:
    """A command that runs a shell script as root of a namespace, where it may mount disks.

    Words that are added to it are the script's arguments. Skips where the system forbids that.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not on this machine")
    command = [unshare, "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = [*command, "mount -t tmpfs tmpfs /mnt"]
    allowed = subprocess.run(mount, capture_output=True, text=True, timeout=60)
    if allowed.returncode:
        pytest.skip(f"no mounts of one's own here: {allowed.stderr.strip()}")
    return [*command, script, "sh"]


def _find(program: str) -> str | None:
    beside = Path(sys.executable).parent / program
    if beside.is_file():
        return str(beside)
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_ALSO_IN}")


def _llama_server() -> str | None:
    named = os.environ.get("LLAMACTL_TEST_LLAMA_SERVER")
    return named if named and Path(named).is_file() else shutil.which("llama-server")


def _missing(what: str, how_to_get: str) -> NoReturn:
    reason = f"{what} ({how_to_get})" if how_to_get else what
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; in CI .ci/run must bring it", pytrace=False)
    pytest.skip(reason)
