"""``llamactl download`` as a process, with and without a server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamactl.cli import jobs
from llamactl.downloads.byte_ranges import ByteRanges
from tests.cli.conftest import Run
from tests.e2e.processes import PATIENCE, LlamactlProcess, wait_for
from tests.fakes.fake_hub import FakeHub

REPO = "org/name"
SIZE = 24 << 20
CONTENT = random.Random(7).randbytes(SIZE)
PREPARED = "model-Q4_K_M.gguf"
#: Bytes per second on each connection, so that the end is minutes away.
SLOW = 1 << 15


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.add_repo(REPO, {PREPARED: CONTENT, "README.md": b"# Name\n"})
        yield hub


class Shell:
    """Runs commands as processes on directories of their own."""

    def __init__(self, folder: Path, hub: FakeHub) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "HF_ENDPOINT": hub.endpoint,
            "LLAMACTL_DATA_DIRECTORY": str(folder / "data"),
            "LLAMACTL_LLAMACPP_CACHE_DIR": str(folder / "flat"),
            "LLAMACTL_HUB_DIR": str(folder / "hub"),
            "LLAMACTL_DOWNLOADS_MIN_FREE_SPACE": "0",
        }

    def start(self, *arguments: str, **how: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            (sys.executable, "-m", "llamactl", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=how.pop("stderr", subprocess.PIPE),
            cwd=self.folder,
            env=self.environment,
            text=True,
            **how,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def path(self) -> Path:
        return self.folder / f"flat/org_name_{PREPARED}"


@pytest.fixture
def shell(tmp_path: Path, hub: FakeHub) -> Shell:
    return Shell(tmp_path, hub)


def test_the_path_is_the_only_result_and_progress_is_on_standard_error(shell: Shell) -> None:
    code, out, err = shell.run("download", f"{REPO}:q4_k_m")
    assert code == 0, err
    assert out == f"{shell.path()}\n"
    assert shell.path().read_bytes() == CONTENT
    assert "completed" in err
    assert "\x1b" not in err


def test_json_is_one_event_a_line(shell: Shell) -> None:
    code, out, err = shell.run("download", REPO, "--json")
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1]["event"] == "completed"
    job = events[-1]["job"]
    assert (job["repo"], job["status"]) == (REPO, "completed")
    assert job["model_path"] == str(shell.path())
    assert job["progress"]["bytes_downloaded"] == job["progress"]["total_bytes"] == SIZE


def test_a_terminal_gets_a_bar(shell: Shell) -> None:
    leader, follower = pty.openpty()
    seen = bytearray()

    def look() -> None:
        with contextlib.suppress(OSError):
            while some := os.read(leader, 1 << 16):
                seen.extend(some)

    # A terminal that nobody reads holds up whoever writes to it.
    looking = threading.Thread(target=look)
    looking.start()
    try:
        with shell.start("download", f"{REPO}:Q4_K_M", stderr=follower) as process:
            out, _ = process.communicate(timeout=PATIENCE)
    finally:
        os.close(follower)
        looking.join(PATIENCE)
        os.close(leader)
    assert process.returncode == 0
    assert out == f"{shell.path()}\n"
    assert PREPARED in seen.decode()
    assert b"\x1b[J" in seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupted_download_goes_on_with_the_same_command(
    shell: Shell, hub: FakeHub, number: signal.Signals
) -> None:
    hub.throttle(SLOW)
    with shell.start("download", f"{REPO}:Q4_K_M", "--json") as process:
        assert process.stdout is not None
        done = 0
        while done < SIZE // 32:
            done = json.loads(process.stdout.readline())["job"]["progress"]["bytes_downloaded"]
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert re.search(
        r"Interrupted with [\d.]+ [kM]B of 25\.2 MB on the disk; the same command goes", err
    )
    assert "Traceback" not in err
    assert not shell.path().exists()
    before = len(hub.requests("cdn"))
    hub.throttle(None)
    code, out, err = shell.run("download", f"{REPO}:Q4_K_M")
    assert (code, out) == (0, f"{shell.path()}\n"), err
    assert shell.path().read_bytes() == CONTENT
    asked = ByteRanges()
    for request in hub.requests("cdn")[before:]:
        assert request.byte_range is not None
        asked.add(request.byte_range[0], request.byte_range[1] + 1)
    assert asked.total <= SIZE - done


def test_rm_takes_what_an_interrupted_download_left(shell: Shell, hub: FakeHub) -> None:
    hub.throttle(SLOW)
    with shell.start("download", f"{REPO}:Q4_K_M", "--json") as process:
        assert process.stdout is not None
        while not list(shell.folder.rglob("*.incomplete")):
            assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert list(shell.folder.rglob("*.incomplete"))
    code, _, err = shell.run("models", "rm", f"{REPO}:Q4_K_M")
    assert code == 0, err
    assert not list(shell.folder.rglob("*.incomplete*"))
    assert shell.run("models", "rm", f"{REPO}:Q4_K_M")[0] == 1


@pytest.mark.parametrize(
    ("reference", "told"),
    [("org/none", "HF_TOKEN"), (f"{REPO}:Q2_K", "Q4_K_M")],
    ids=["no such repo", "no such tag"],
)
def test_a_download_that_cannot_be_is_exit_1_and_one_line_with_the_remedy(
    shell: Shell, reference: str, told: str
) -> None:
    code, out, err = shell.run("download", reference)
    assert (code, out) == (1, "")
    assert told in err.splitlines()[-1]
    assert "Traceback" not in err


def test_an_unreachable_hub_is_exit_1(shell: Shell) -> None:
    shell.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    shell.environment["LLAMACTL_DOWNLOADS_RETRY_LIMIT"] = "0"
    code, out, err = shell.run("download", REPO)
    assert (code, out) == (1, "")
    assert "127.0.0.1" in err
    assert "Traceback" not in err


def test_offline_the_hub_is_not_asked_and_the_variable_is_named(shell: Shell, hub: FakeHub) -> None:
    shell.environment["HF_HUB_OFFLINE"] = "1"
    code, out, err = shell.run("download", REPO)
    assert (code, out) == (1, "")
    assert "HF_HUB_OFFLINE is set. Unset it" in err.splitlines()[-1]
    assert hub.log == []


def test_a_cache_that_cannot_be_written_is_exit_1(shell: Shell) -> None:
    (shell.folder / "flat").write_text("a file where the directory would be")
    code, _, err = shell.run("download", REPO)
    assert code == 1
    assert str(shell.folder / "flat") in err.splitlines()[-1]
    assert "Traceback" not in err


def test_the_end_of_a_download_is_seen_at_once(
    run: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(jobs, "_LOOK_HERE", 100 * PATIENCE)
    began = time.monotonic()
    assert run("download", REPO).code == 0
    assert time.monotonic() - began < PATIENCE


def test_two_downloads_without_a_server_do_not_share_a_data_directory(
    shell: Shell, hub: FakeHub
) -> None:
    hub.throttle(SLOW)
    with shell.start("download", REPO, "--json") as first:
        assert first.stdout is not None
        first.stdout.readline()
        code, out, err = shell.run("download", REPO)
        assert (code, out) == (1, "")
        assert f"process {first.pid}" in err
        first.terminate()
        first.communicate(timeout=PATIENCE)


def test_a_running_server_gets_the_job_and_the_command_follows_it(
    shell: Shell, hub: FakeHub, tmp_path: Path
) -> None:
    server = LlamactlProcess(
        tmp_path / "server",
        {
            "data_dir": str(shell.folder / "data"),
            "backends.llama-cpp.cache_dir": str(shell.folder / "flat"),
            "backends.llama-cpp.hub_dir": str(shell.folder / "hub"),
        },
        environment={"HF_ENDPOINT": hub.endpoint},
    )
    try:
        server.data_dir = shell.folder / "data"
        server.start()
        shell.environment["HF_TOKEN"] = "hf_of_this_shell"
        code, _, err = shell.run("download", "org/private")
        assert code == 1
        assert "HF_TOKEN of this shell is not it" in err
        hub.throttle(SLOW)
        with shell.start("download", REPO, "--json") as follower:
            assert follower.stdout is not None
            job = json.loads(follower.stdout.readline())["job"]
            follower.send_signal(signal.SIGINT)
            _, err = follower.communicate(timeout=PATIENCE)
        assert follower.returncode == 130
        assert "goes on with it" in err
        with shell.start("download", REPO, "--json") as follower:
            assert follower.stdout is not None
            assert json.loads(follower.stdout.readline())["job"]["id"] == job["id"]
            hub.throttle(None)
            out, err = follower.communicate(timeout=PATIENCE)
        assert follower.returncode == 0, err
        last = json.loads(out.splitlines()[-1])
        assert (last["event"], last["job"]["id"]) == ("completed", job["id"])
        code, out, _ = shell.run("models")
        assert str(shell.path()) in out
        assert shell.run("models", "rm", f"{REPO}:latest")[0] == 0
        wait_for("the model to be gone", lambda: not shell.path().exists())
    finally:
        server.kill_everything()


def test_a_reference_that_is_none_is_bad_usage(run: Run) -> None:
    for reference in ("../../x", "name", "a/b\nc", "x" * 10_000):
        outcome = run("download", reference)
        assert (outcome.code, outcome.out) == (2, "")
        assert len(outcome.err.splitlines()) == 1
