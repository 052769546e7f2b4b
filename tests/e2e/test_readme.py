"""The README's commands, typed as they stand there, lead from a download to an answer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Make
from tests.e2e.processes import PATIENCE, LlamactlProcess
from tests.fakes.fake_hub import FakeHub
from tests.fakes.gguf_files import tiny_gguf_bytes
from tests.requirements import require, require_module

README = Path(__file__).parents[2] / "README.md"
REPO = "bartowski/Llama-3.2-3B-Instruct-GGUF"
FILE = "Llama-3.2-3B-Instruct-Q4_K_M.gguf"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def typed(server: LlamactlProcess, command: list[str]) -> str:
    """What a command prints in the server's folder, with the server's address for the README's."""
    words = [word.replace("http://127.0.0.1:8080", server.url) for word in command]
    done = subprocess.run(
        words,
        cwd=server.folder,
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_each_command_of_the_readme_does_what_it_says(make_server: Make) -> None:
    require("curl")
    require_module("xllamacpp")
    with FakeHub() as hub:
        hub.add_repo(REPO, {FILE: tiny_gguf_bytes()})
        server = make_server(environment={"HF_ENDPOINT": hub.endpoint}).start()
        (server.folder / ".venv").symlink_to(Path(sys.prefix))
        download, create, ask, doctor = (
            typed(server, ["bash", "-euc", block]) for block in blocks("bash")
        )
    assert Path(download.strip()).read_bytes() == tiny_gguf_bytes()
    assert create == "llama stopped\n"
    assert '"content":"' in ask
    assert "FAIL" not in doctor
    (program,) = blocks("python")
    assert typed(server, [sys.executable, "-c", program]).strip()


def test_the_two_commands_at_its_head_are_targets_of_make() -> None:
    head = README.read_text().split("## ")[0]
    told = subprocess.run(
        [require("make"), "--dry-run", "run", "test"],
        cwd=README.parent,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert "make run " in head
    assert "make test " in head
