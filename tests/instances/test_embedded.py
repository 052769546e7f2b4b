"""The embedded llama.cpp: real xllamacpp on a tiny real model."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamactl.errors import InvalidRequest, StartFailed, UnsupportedFlag
from llamactl.instances.backend import embedded_command
from llamactl.instances.embedded_flags import read_settings
from llamactl.instances.health import Probe
from llamactl.instances.ports import Ports
from llamactl.secret import Secret
from tests.fakes.gguf_files import tiny_gguf
from tests.instances.asking import slots_while_writing
from tests.instances.conftest import FIRST_PORT, PATIENCE, Stage, StageFactory, eventually
from tests.requirements import require_module


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_module("xllamacpp")
    require_module("gguf")
    return tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")[0]


@pytest.fixture
def embedded(
    make_stage: StageFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Stage]:
    """A supervisor on a machine without a llama-server."""
    require_module("xllamacpp")
    monkeypatch.setenv("PATH", str(tmp_path))
    settings: dict[str, object] = {
        "backends.llama-cpp.command": None,
        "backends.llama-cpp.args": [],
    }
    stage = make_stage(settings, grace=PATIENCE)
    assert stage.supervisor.backend().kind == "embedded"
    yield stage


def post(stage: Stage, path: str, body: dict[str, Any], name: str = "one") -> Any:
    with stage.supervisor.lease(name) as lease:
        connection = http.client.HTTPConnection(lease.host, lease.port, timeout=PATIENCE)
        headers = {
            "Authorization": f"Bearer {lease.api_key.reveal()}",
            "Content-Type": "application/json",
        }
        connection.request("POST", path, json.dumps(body), headers)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer


def test_it_answers_by_the_instances_name(embedded: Stage, model: Path) -> None:
    options = {"model": str(model), "ctx_size": 512, "threads": 1, "parallel": 1}
    embedded.run(backend_options=options)
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    answer = post(embedded, "/v1/chat/completions", chat)
    assert answer["choices"][0]["message"]["content"] and answer["model"] == "one"


def test_its_slots_tell_how_far_an_answer_is(embedded: Stage, model: Path) -> None:
    embedded.run(backend_options={"model": str(model), "parallel": 1})
    first, second = slots_while_writing(embedded)
    assert len(first.working) == len(second.working) == 1
    assert first.working.keys() == second.working.keys()
    assert second.written_since(first) > 0


def test_it_embeds(embedded: Stage, model: Path) -> None:
    options = {"model": str(model), "ctx_size": 512, "embeddings": True, "pooling": "mean"}
    embedded.run(backend_options=options)
    answer = post(embedded, "/v1/embeddings", {"input": ["a", "b"]})
    assert len(answer["data"]) == 2 and len(answer["data"][0]["embedding"]) > 8


def test_a_model_in_parts_is_loaded(embedded: Stage, tmp_path: Path) -> None:
    parts = tiny_gguf(tmp_path / "parts.gguf", shards=3)
    embedded.run(backend_options={"model": str(parts[0]), "ctx_size": 512})
    assert post(embedded, "/v1/completions", {"prompt": "a", "max_tokens": 2})["choices"]


def test_its_key_is_wanted(embedded: Stage, model: Path) -> None:
    running = embedded.run(backend_options={"model": str(model), "ctx_size": 512})
    assert running.port is not None
    stranger = Probe("127.0.0.1", running.port, Secret("another"))
    assert stranger.readiness(30) == "foreign"


def test_many_flags_at_once_are_honoured(embedded: Stage, model: Path) -> None:
    embedded.run(
        backend_options={
            "model": str(model),
            "c": 512,
            "ngl": 99,
            "np": 2,
            "b": 256,
            "ub": 128,
            "flash_attn": "on",
            "cache_type_k": "bf16",
            "load_mode": "mmap",
            "numa": "distribute",
            "jinja": True,
            "metrics": True,
            "seed": -1,
            "temp": 0.1,
            "samplers": "top_k;temperature",
            "no_warmup": True,
            "no_mmproj": True,
            "rope_scaling": "none",
            "reasoning": "off",
            "reasoning_format": "none",
            "chat_template_kwargs": '{"a": 1}',
            "alias": ["x", "y"],
            "split_mode": "layer",
            "fit": "off",
        }
    )
    with embedded.supervisor.lease("one") as lease:
        probe = Probe(lease.host, lease.port, lease.api_key)
        assert probe.status("/metrics", 30, with_key=True) == 200
        assert probe.status("/slots", 30, with_key=True) == 200


def test_a_template_file_and_an_adapter_list_are_read(
    embedded: Stage, model: Path, tmp_path: Path
) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    options = {"model": str(model), "ctx_size": 512, "chat_template_file": str(template)}
    embedded.run(backend_options=options)
    prompt = post(embedded, "/apply-template", {"messages": [{"role": "user", "content": "hey"}]})
    assert prompt == {"prompt": "hey"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"hf_repo": "org/name"}, "--hf-repo"),
        ({"model": "MODEL", "grammar": "root ::= x"}, "--grammar"),
        ({"model": "MODEL", "extra_args": {"--of-tomorrow": 1}}, "--of-tomorrow"),
    ],
)
def test_a_flag_that_it_cannot_honour_is_named_with_what_to_install(
    embedded: Stage, model: Path, given: dict[str, Any], named: str
) -> None:
    given = {key: str(model) if value == "MODEL" else value for key, value in given.items()}
    embedded.create(backend_options=given)
    with pytest.raises(StartFailed, match=named) as caught:
        embedded.supervisor.start_instance("one", wait=PATIENCE)
    assert "llama-server" in caught.value.hint
    assert embedded.get().restarts == 0


def test_it_has_no_router_and_says_so(embedded: Stage) -> None:
    embedded.create(backend_options={"ctx_size": 512})
    with pytest.raises(StartFailed, match="router"):
        embedded.supervisor.start_instance("one", wait=PATIENCE)


def test_a_damaged_model_is_told_in_plain_words(
    embedded: Stage, model: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    embedded.create(backend_options={"model": str(damaged)})
    with pytest.raises(StartFailed, match="damaged or not whole"):
        embedded.supervisor.start_instance("one", wait=PATIENCE)
    assert embedded.get().restarts == 1


#: The process's own words go nowhere, and its end waits for nothing that ``main`` did not wait for.
_FAILED_LOAD = """
import io, os, sys
sys.stderr = io.StringIO()
from llamactl.instances.embedded import main
os._exit(main(["--model", sys.argv[1]]))
"""


def test_the_log_of_a_failed_load_is_whole_also_when_its_reader_is_slow(tmp_path: Path) -> None:
    require_module("xllamacpp")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(writing, b".")
    os.set_blocking(writing, True)
    argv = [sys.executable, "-c", _FAILED_LOAD, str(damaged)]
    process = subprocess.Popen(argv, stdout=writing, stderr=writing)
    os.close(writing)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        with os.fdopen(reading, "rb") as output:
            written = output.read()[filled:]
        assert process.wait(PATIENCE) == 1
        assert b"exiting due to model loading error" in written.splitlines()[-1]
    finally:
        process.kill()
        process.wait()


def test_a_crash_is_restarted(embedded: Stage, model: Path) -> None:
    first = embedded.run(backend_options={"model": str(model), "ctx_size": 512}, restart_delay=0)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSEGV)
    eventually(lambda: embedded.get().pid not in (None, first.pid))
    assert embedded.until("running").restarts == 1


def test_a_long_answer_does_not_hold_up_its_end(embedded: Stage, model: Path) -> None:
    embedded.run(backend_options={"model": str(model), "ctx_size": 0})
    with embedded.supervisor.lease("one") as lease:
        connection = http.client.HTTPConnection(lease.host, lease.port, timeout=PATIENCE)
        key = {"Authorization": f"Bearer {lease.api_key.reveal()}"}
        body = {"prompt": "a", "max_tokens": 10**6, "stream": True, "ignore_eos": True}
        connection.request("POST", "/v1/completions", json.dumps(body), key)
        answer = connection.getresponse()
        answer.read1(10)
        stopped = embedded.supervisor.stop_instance("one", wait=PATIENCE)
        assert stopped.status == "stopped"
        connection.close()
    assert stopped.exit_code == 0


def handles(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for a signal; while it loads it has none."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_it_ends_cleanly_at_sigterm_also_when_run_by_hand(model: Path) -> None:
    port = Ports(FIRST_PORT + 90, FIRST_PORT + 99).reserve()
    argv = [*embedded_command(), "-m", str(model), "-c", "512", "--port", str(port)]
    environment = {**os.environ, "LLAMA_API_KEY": "k"}
    process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL)
    try:
        probe = Probe("127.0.0.1", port, Secret("k"))
        eventually(lambda: probe.readiness(5) == "ready")
        eventually(lambda: handles(process.pid, signal.SIGTERM))
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("argv", [["--version"], ["--help"]])
def test_it_tells_its_version_and_its_flags(argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llamactl.instances.embedded", *argv],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("version: ") or "--ctx-size" in done.stdout


def test_a_command_line_that_is_none_ends_with_2() -> None:
    done = subprocess.run(
        [*embedded_command(), "--hf-repo", "a/b"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "--hf-repo" in done.stderr


def test_settings_are_read_by_the_flags_kind() -> None:
    settings = read_settings(["-m", "a.gguf", "-ngl", "all", "--lora", "a,b", "--no-warmup"])
    assert {setting.flag.name: setting.value for setting in settings} == {
        "model": "a.gguf",
        "gpu-layers": "all",
        "lora": ("a", "b"),
        "warmup": False,
    }


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["-c", "512"], UnsupportedFlag),
        (["-m", "a", "--docker-repo", "x"], UnsupportedFlag),
        (["-m", "a", "-c", "many"], InvalidRequest),
        (["-m"], InvalidRequest),
        (["model.gguf"], InvalidRequest),
    ],
)
def test_what_no_command_line_can_be_is_refused(words: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        read_settings(words)
