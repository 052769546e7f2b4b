"""The programs that share the caches: ``hf``, today's llama.cpp, and our own command line."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.requirements import require

Done = subprocess.CompletedProcess[str]
Entry = tuple[str, ...]

#: What ``hf`` keeps for itself beside a model.
BOOKKEEPING = frozenset({".locks", "CACHEDIR.TAG", "trees"})


@dataclass(frozen=True)
class Programs:
    """They all see one Hub's cache, one flat cache, and one hub; ``folder`` holds the caches."""

    folder: Path
    endpoint: str
    umask: int = 0o022

    @property
    def hub_dir(self) -> Path:
        return self.folder / "hub"

    @property
    def flat(self) -> Path:
        return self.folder / "flat"

    def repo_dir(self, repo_id: str) -> Path:
        return self.hub_dir / f"models--{repo_id.replace('/', '--')}"

    def hf(self, *arguments: str) -> Done:
        """The real command; raises ``CalledProcessError`` when it fails."""
        return self._run((require("hf"), *arguments), check=True)

    def start_hf(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            (require("hf"), *arguments),
            env=self._environment(),
            umask=self.umask,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def llama_cpp(self, *arguments: str, check: bool = True) -> Done:
        """``llama download …``: what ``llama-server`` does before it loads."""
        return self._run((llama(), "download", *arguments), check=check)

    def start_llama_cpp(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            (llama(), "download", *arguments),
            env=self._environment(),
            umask=self.umask,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def llamactl(self, *arguments: str, check: bool = True) -> Done:
        return self._run((sys.executable, "-m", "llamactl", *arguments), check=check)

    def models(self) -> dict[str, Any]:
        """What llamactl lists, by reference."""
        listed = json.loads(self.llamactl("models", "--json").stdout)
        return {f"{model['repo']}:{model['tag']}": model for model in listed}

    def _run(self, command: Sequence[str], *, check: bool) -> Done:
        done = subprocess.run(
            command,
            env=self._environment(),
            umask=self.umask,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_CACHE": str(self.hub_dir),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "LLAMACTL_HUB_DIR": str(self.hub_dir),
            "LLAMACTL_LLAMACPP_CACHE_DIR": str(self.flat),
            "LLAMACTL_DATA_DIRECTORY": str(self.folder / "data"),
            "LLAMACTL_DOWNLOADS_MIN_FREE_SPACE": "0",
        }


def llama() -> str:
    """The program of llama.cpp that only downloads."""
    path = Path(require("llama-server")).with_name("llama")
    if not path.is_file():
        pytest.skip("this llama.cpp was built without the program llama")
    return str(path)


def tree(root: Path) -> dict[str, Entry]:
    """Everything below a Hub's cache but ``hf``'s bookkeeping: its kind, mode, target or digest."""
    found: dict[str, Entry] = {}
    for path in root.rglob("*"):
        name = path.relative_to(root)
        if BOOKKEEPING.isdisjoint(name.parts):
            found[str(name)] = _entry(path)
    return found


def _entry(path: Path) -> Entry:
    if path.is_symlink():
        return ("link", str(path.readlink()))
    mode = oct(stat.S_IMODE(path.stat().st_mode))
    if path.is_dir():
        return ("folder", mode)
    return ("file", mode, sha256(path.read_bytes()).hexdigest())
