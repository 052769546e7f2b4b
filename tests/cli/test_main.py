"""Exit codes, help, and what a user can get wrong."""

from __future__ import annotations

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from llamactl import __version__
from llamactl.cli.groups import COMMANDS, ELSEWHERE, root
from tests.cli.conftest import Run


def test_help_lists_every_command_without_importing_its_module(tmp_path: Path) -> None:
    script = (
        "import sys; from llamactl import cli; code = cli.run(['--help']);"
        "heavy = {'flask', 'requests', 'gunicorn', 'huggingface_hub', 'sqlite3', 'yaml'};"
        "print(sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    *_, imported = done.stdout.splitlines()
    assert imported == "[]"
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_line_of_a_command_is_its_own_first_sentence(name: str) -> None:
    module, attribute = COMMANDS[name][0].split(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert root.get_command(click.Context(root), name) is command
    first = (command.help or "").split("\n")[0].split(";")[0].rstrip(".")
    assert COMMANDS[name][1].split(";")[0].rstrip(".").split(",")[0] in first


def test_a_misspelled_command_is_answered_with_the_nearest(run: Run) -> None:
    outcome = run("instance")
    assert outcome.code == 2
    assert "Did you mean 'instances'?" in outcome.err


def test_the_version_is_a_result(run: Run) -> None:
    assert run("--version") == (0, f"llamactl {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("download",),
        ("download", "a", "b"),
        ("instances", "start"),
        ("serve", "--port", "many"),
        ("--no-such-option",),
        ("keys", "create", "x", "--expires", "soon", "--url", "http://127.0.0.1:9", "--key", "k"),
    ],
)
def test_bad_usage_is_exit_2_with_a_message_on_standard_error(
    run: Run, arguments: tuple[str, ...]
) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err


@pytest.mark.parametrize("command", ["download x/y", "models", "instances", "doctor", "serve"])
def test_bad_configuration_is_exit_2_and_names_file_line_and_key(
    run: Run, tmp_path: Path, command: str
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("server:\n  port: 8080\n  prot: 1\n")
    outcome = run(*command.split(), "--config", str(file))
    assert outcome.code == 2
    assert f"{file}:3: server.prot" in outcome.err + outcome.out
    assert "Traceback" not in outcome.err


def test_a_configuration_file_that_is_not_there_is_exit_2(run: Run, tmp_path: Path) -> None:
    outcome = run("models", "--config", str(tmp_path / "none.yaml"))
    assert outcome.code == 2
    assert "none.yaml" in outcome.err


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "llamactl", "--help"],
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
    finally:
        os.close(write_end)
    assert done.stderr == ""


def test_a_word_of_another_program_is_answered_with_ours(run: Run) -> None:
    outcome = run("pull", "llama3.2")
    assert (outcome.code, outcome.out) == (2, "")
    assert "llamactl download" in outcome.err


def test_every_word_of_another_program_leads_to_a_command_that_exists() -> None:
    for ours in ELSEWHERE.values():
        name, *rest = ours.split()
        command = root.get_command(click.Context(root), name)
        assert command is not None
        if rest and isinstance(command, click.Group):
            assert rest[0] in command.commands


def test_a_place_that_may_not_be_written_is_exit_1_with_the_remedy(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**_how: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data")

    monkeypatch.setattr(root, "main", refused)
    outcome = run("models")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("Permission denied: /data. Check the owner")


def test_without_a_command_the_server_is_meant(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("server:\n  port: 99999\n")
    outcome = run("--config", str(file))
    assert outcome.code == 2
    assert f"{file}:2: server.port" in outcome.err
