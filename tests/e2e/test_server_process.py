"""The server as processes: how it starts, what it refuses, and that nothing outlives it."""

from __future__ import annotations

import functools
import os
import pty
import random
import signal
import socket
import sys
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import Make
from tests.e2e.processes import PATIENCE, LlamactlProcess, fake_hub, marked, wait_for
from tests.fakes.gguf_files import tiny_gguf
from tests.fakes.llama import FakeLlama
from tests.requirements import require_module

GUNICORN = (sys.executable, "-m", "gunicorn", "-c", "python:llamactl.gunicorn_conf")
#: A server that gives streams, and with that gunicorn everybody, longer than a busy machine takes.
GRACIOUS = (
    sys.executable,
    "-c",
    "from llamactl import runtime\n"
    f"runtime.STREAM_GRACE = {3 * PATIENCE}\n"
    "from llamactl.cli import main\n"
    "main()",
    "serve",
)
MODELS = "/backends/llama-cpp/models"


def answers(server: LlamactlProcess) -> bool:
    answer = requests.get(f"{server.url}/healthz", timeout=PATIENCE)
    return (answer.status_code, answer.text.strip()) == (200, "ok")


def run_instance(server: LlamactlProcess, name: str = "tiny") -> int:
    """Start an instance of the embedded llama.cpp; its process."""
    model = server.folder / "tiny.gguf"
    tiny_gguf(model)
    body = {"backend_type": "llama_cpp", "backend_options": {"model": str(model), "ctx_size": 256}}
    assert server.api("POST", f"/instances/{name}", json=body).status_code == 201
    started = server.api("POST", f"/instances/{name}/start", params={"wait": PATIENCE})
    assert started.status_code == 200, started.text
    assert started.json()["status"] == "running"
    pid = started.json()["pid"]
    assert isinstance(pid, int)
    return pid


def test_the_listening_line_comes_once_and_the_server_answers(make_server: Make) -> None:
    server = make_server().start()
    assert answers(server)
    assert server.output.count("llamactl is listening on http://127.0.0.1:") == 1
    assert str(server.data_dir / "management.key") in server.output


def test_the_management_key_is_shown_to_a_terminal_and_to_nothing_else(make_server: Make) -> None:
    piped = make_server().start()
    assert piped.key not in piped.output
    assert (piped.data_dir / "management.key").stat().st_mode & 0o777 == 0o600

    shown = make_server()
    leader, follower = pty.openpty()
    shown.output_file = Path(os.ttyname(follower))
    try:
        process = shown.spawn()
        seen = b""
        while b"listening on" not in seen:
            seen += os.read(leader, 4096)
        assert shown.key.encode() in seen
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        os.close(follower)
        os.close(leader)


def test_gunicorn_with_the_shipped_configuration_is_the_same_server(make_server: Make) -> None:
    server = make_server(command=GUNICORN).start()
    assert answers(server)
    assert server.stop() == 0
    assert server.processes() == set()


@pytest.mark.parametrize(
    "flags",
    [
        ("--workers", "2"),
        ("--preload",),
        ("--reload",),
        ("--max-requests", "100"),
        ("--worker-class", "sync"),
    ],
    ids=" ".join,
)
def test_whatever_would_make_a_second_worker_is_refused_with_the_reason(
    make_server: Make, flags: tuple[str, ...]
) -> None:
    server = make_server(command=(*GUNICORN, *flags))
    assert server.spawn().wait(PATIENCE) != 0
    assert "one gthread worker" in server.output
    assert flags[0] in server.output
    assert "Traceback" not in server.output
    assert server.processes() == set()


def test_a_second_server_on_the_same_data_directory_is_refused(make_server: Make) -> None:
    first = make_server().start()
    second = make_server({"data_dir": str(first.data_dir)})
    assert second.spawn().wait(PATIENCE) == 1
    assert f"process {first.master}" in second.output
    assert str(first.data_dir) in second.output
    assert "Traceback" not in second.output
    assert answers(first)


def test_a_port_that_is_taken_ends_the_start_with_a_sentence(make_server: Make) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = make_server({"server.port": port})
        assert server.spawn().wait(PATIENCE) == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in server.output
    assert "--port" in server.output
    assert len(server.output.strip().splitlines()) == 1
    assert server.processes() == set()


@pytest.mark.parametrize("command", [None, GUNICORN], ids=["llamactl serve", "gunicorn"])
def test_bad_configuration_ends_the_start_with_file_line_and_key(
    make_server: Make, command: tuple[str, ...] | None
) -> None:
    server = make_server(command=command)
    server.config_file.write_text("downloads:\n  conections: 8\n")
    code = server.spawn().wait(PATIENCE)
    assert code == 2 if command is None else code != 0
    assert f"{server.config_file}:2: downloads.conections" in server.output
    if command is None:
        assert len(server.output.strip().splitlines()) == 1
    assert not server.data_dir.exists()


def test_sigterm_stops_instances_and_leaves_no_process(make_server: Make) -> None:
    require_module("xllamacpp")
    server = make_server().start()
    instance = run_instance(server)
    assert instance in server.processes()
    assert server.stop() == 0
    assert server.processes() == set()
    assert not Path(f"/proc/{instance}").exists()


@pytest.mark.parametrize("way", ["SIGTERM to the master", "Ctrl-C in a terminal"])
def test_a_stop_leaves_streams_their_grace_and_a_second_signal_takes_it(
    make_server: Make, tmp_path: Path, way: str
) -> None:
    llama = FakeLlama(tmp_path)
    server = make_server(llama.settings, command=GRACIOUS).start()
    body = {"backend_type": "llama_cpp", "backend_options": {"model": str(llama.model)}}
    assert server.api("POST", "/instances/chat", json=body).status_code == 201
    asked = {"model": "chat", "stream": True, "fake": {"tokens": 10_000, "gap": 0.05}}
    ask = functools.partial(
        requests.post,
        f"{server.url}/v1/chat/completions",
        headers=server.headers,
        timeout=PATIENCE,
    )

    def signal_once() -> None:
        if way.startswith("SIGTERM"):
            server.process.terminate()
        else:
            os.killpg(server.master, signal.SIGINT)

    with ask(json=asked, stream=True) as stream:
        lines = stream.iter_lines()
        assert b"choices" in next(lines)
        signal_once()
        # Two seconds of events: whoever ends the stream at once has ended it by then.
        for _ in range(80):
            assert b"error" not in next(lines)
        signal_once()
        # What is left of the grace is longer than this.
        server.process.wait(PATIENCE)
    assert server.processes() == set()


HALF_A_FORM = (
    "POST /login HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    "Content-Length: 9999\r\n\r\na"
)


@pytest.mark.parametrize("sent", ["GET / HTTP/1.1\r\nX-A: ", HALF_A_FORM])
def test_a_stop_does_not_wait_for_a_request_that_never_comes_whole(
    make_server: Make, sent: str
) -> None:
    server = make_server(command=GRACIOUS).start()
    host, port = server.url.removeprefix("http://").split(":")
    begun = sent.replace(" HTTP/1.1\r\n", f" HTTP/1.1\r\nHost: {host}\r\n").encode()
    with socket.create_connection((host, int(port))) as held:
        held.sendall(begun)
        assert answers(server)
        # gunicorn alone would wait for all of its own bound.
        assert server.stop(PATIENCE) == 0
    assert server.processes() == set()


def test_all_request_threads_are_there_before_the_first_request(make_server: Make) -> None:
    server = make_server({"server.threads": 100}).start()
    assert len(list(Path(f"/proc/{server.worker}/task").iterdir())) >= 100


@pytest.mark.parametrize("victims", ["master", "worker", "both"])
def test_sigkill_leaves_nothing_of_what_was_running(make_server: Make, victims: str) -> None:
    require_module("xllamacpp")
    server = make_server().start()
    instance = run_instance(server)
    worker = server.worker
    for pid in {"master": [server.master], "worker": [worker], "both": [server.master, worker]}[
        victims
    ]:
        os.kill(pid, signal.SIGKILL)
    old = {worker, instance}
    wait_for("the end of the old worker and its instance", lambda: not old & alive(old))
    if victims != "worker":
        wait_for("the end of every process", lambda: not marked(server.mark) - {server.master})
        return
    # The master has put a new worker in its place, which runs again what ran before.
    wait_for("the new worker", lambda: server.output.count("llamactl is listening on") == 2)
    assert answers(server)
    wait_for(
        "the instance to run again",
        lambda: server.api("GET", "/instances/tiny").json()["status"] == "running",
    )
    assert server.stop() == 0
    assert server.processes() == set()


def alive(pids: set[int]) -> set[int]:
    """Those that are processes still, zombies not counted."""
    found = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.add(pid)
    return found


def test_an_instance_that_ran_runs_again_after_a_restart_of_the_server(make_server: Make) -> None:
    require_module("xllamacpp")
    server = make_server().start()
    before = run_instance(server)
    assert server.stop() == 0
    server.start()

    def again() -> int | None:
        told = server.api("GET", "/instances/tiny").json()
        return told["pid"] if told["status"] == "running" else None

    assert wait_for("the instance to run again", again) != before


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_a_download_goes_on_by_itself_after_a_restart(
    make_server: Make, tmp_path: Path, how: str
) -> None:
    size = 96 << 20
    source = tmp_path / "repo"
    source.mkdir()
    content = random.Random(1).randbytes(size)
    (source / "model-Q4_K_M.gguf").write_bytes(content)
    with fake_hub("--repo", f"org/name={source}", "--throttle", str(4 << 20)) as endpoint:
        server = make_server(environment={"HF_ENDPOINT": endpoint}).start()
        posted = server.api("POST", f"{MODELS}/download", json={"repo": "org/name:Q4_K_M"})
        job = f"{MODELS}/jobs/{posted.json()['job_id']}"

        def done() -> int:
            return int(server.api("GET", job).json()["progress"]["bytes_downloaded"])

        wait_for("a part of the bytes", lambda: done() >= size // 4)
        if how == "SIGTERM":
            assert server.stop() == 0
        else:
            os.killpg(server.master, signal.SIGKILL)
            server.process.wait(PATIENCE)
            wait_for("the end of every process", lambda: not server.processes())
        server.start()
        assert done() > 0
        wait_for(
            "the end of the download",
            lambda: server.api("GET", job).json()["status"] == "completed",
        )
    path = Path(server.api("GET", job).json()["model_path"])
    assert path.read_bytes() == content
    assert not list(server.folder.rglob("*.incomplete*"))
    assert server.stop() == 0


def test_sighup_replaces_the_worker_without_a_second_one_beside_it(make_server: Make) -> None:
    server = make_server().start()
    old = server.worker
    os.kill(server.master, signal.SIGHUP)
    wait_for("the new worker", lambda: server.output.count("llamactl is listening on") == 2)
    wait_for("the end of the old worker", lambda: not alive({old}))
    assert answers(server)
    assert server.stop() == 0
    assert server.processes() == set()


def test_two_signals_to_add_workers_still_leave_one(make_server: Make) -> None:
    server = make_server().start()
    for _ in range(2):
        os.kill(server.master, signal.SIGTTIN)
    wait_for("the refusal", lambda: "one worker" in server.output)
    assert answers(server)
    assert server.worker
    assert server.stop() == 0
