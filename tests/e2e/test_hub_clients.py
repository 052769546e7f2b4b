"""The hub of the tests, checked by the hub's real clients: `hf` and `llama-server -hf`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.fakes.fake_hub import FakeHub, seeded_bytes
from tests.fakes.gguf_files import tiny_gguf, tiny_gguf_bytes
from tests.ports import free_port

REPO = "org/tiny-GGUF"

Runner = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        yield running


@pytest.fixture
def hf(hub: FakeHub, tmp_path: Path) -> Runner:
    """``hf("download", …)`` runs the real command against the hub, with a home of its own."""
    program = Path(sysconfig.get_path("scripts")) / "hf"

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        }
        return subprocess.run(
            [program, *arguments],
            env=environment | environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def _snapshot(tmp_path: Path, repo_id: str) -> Path:
    folder = tmp_path / "hf/hub" / f"models--{repo_id.replace('/', '--')}" / "snapshots"
    return next(folder.iterdir())


def test_hf_downloads_every_file_as_it_is(hub: FakeHub, hf: Runner, tmp_path: Path) -> None:
    files = {
        "README.md": b"# A model\n" * 100,
        "preset.ini": b"",
        "m-Q4_K_M.gguf": seeded_bytes(3_000_000),
        "Q8_0/m-Q8_0-00001-of-00002.gguf": seeded_bytes(1_000, 1),
        "Q8_0/m-Q8_0-00002-of-00002.gguf": seeded_bytes(2_000, 2),
        "odd name %#?é.txt": b"x",
    }
    hub.add_repo(REPO, files)
    done = hf("download", REPO)
    assert done.returncode == 0, done.stderr
    snapshot = _snapshot(tmp_path, REPO)
    found = {
        path.relative_to(snapshot).as_posix(): path.read_bytes()
        for path in snapshot.rglob("*")
        if path.is_file()
    }
    assert found == files
    assert not hub.leaks


def test_hf_reads_a_file_listed_on_a_later_page(hub: FakeHub, hf: Runner) -> None:
    hub.add_repo(REPO, {f"{number:03d}.gguf": b"%d" % number for number in range(12)})
    hub.routes.page_size = 5
    done = hf("download", REPO)
    assert done.returncode == 0, done.stderr
    assert len(hub.requests("cdn")) == 12


def test_hf_needs_the_token_for_a_private_repository(hub: FakeHub, hf: Runner) -> None:
    hub.add_repo(REPO, {"m.gguf": b"m"}, private=True)
    assert hf("download", REPO).returncode != 0
    done = hf("download", REPO, HF_TOKEN=hub.token)
    assert done.returncode == 0, done.stderr
    assert not hub.leaks


@pytest.mark.parametrize(
    ("repo_id", "environ", "said"),
    [
        ("org/nothing", {}, "invalid username or password"),
        ("org/gated", {}, "gated"),
        ("org/open", {"HF_TOKEN": "hf_wrongtokenwrongtokenwrongtokenwrong"}, "401"),
    ],
)
def test_hf_understands_the_refusals(
    hub: FakeHub, hf: Runner, repo_id: str, environ: dict[str, str], said: str
) -> None:
    hub.add_repo("org/gated", {"m.gguf": b"m"}, gated="manual")
    hub.add_repo("org/open", {"m.gguf": b"m"})
    done = hf("download", repo_id, "m.gguf", **environ)
    assert done.returncode != 0
    assert said in (done.stdout + done.stderr).lower()


def test_the_hub_runs_as_a_process_and_serves_folders(tmp_path: Path) -> None:
    payload = seeded_bytes(5_000_000)
    (tmp_path / "repo/sub").mkdir(parents=True)
    (tmp_path / "repo/sub/m.gguf").write_bytes(payload)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.fake_hub", "--repo", f"{REPO}={tmp_path / 'repo'}"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        url = f"{endpoint}/{REPO}/resolve/main/sub/m.gguf"
        assert requests.get(url, timeout=30).content == payload
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def _llama_server() -> str:
    found = os.environ.get("LLAMACTL_TEST_LLAMA_SERVER") or shutil.which("llama-server")
    if not found:
        pytest.skip("no llama-server: set LLAMACTL_TEST_LLAMA_SERVER, or put it on PATH")
    return found


@contextmanager
def _running(folder: Path, endpoint: str, *arguments: str) -> Iterator[str]:
    """A real llama-server with these arguments, when it is ready; gives its url."""
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "HF_ENDPOINT": endpoint,
        "LLAMA_CACHE": str(folder / "cache"),
    }
    command = [_llama_server(), "--port", str(port), "-c", "512", "--no-warmup", *arguments]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}", folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            if requests.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass  # It does not listen yet, or is too busy to say anything.
        time.sleep(0.05)
    raise AssertionError(log.read_text(errors="replace")[-3000:])


def _completion(url: str) -> str:
    asked = {"prompt": "a", "max_tokens": 8}
    answer = requests.post(f"{url}/v1/completions", json=asked, timeout=60).json()
    return str(answer["choices"][0]["text"])


@pytest.fixture
def repo(hub: FakeHub, tmp_path: Path) -> FakeHub:
    shards = tiny_gguf(tmp_path / "shards" / "tiny-F16.gguf", shards=3, seed=2)
    hub.add_repo(
        REPO,
        {"tiny-Q8_0.gguf": tiny_gguf_bytes(), "README.md": b"# tiny\n"}
        | {f"F16/{shard.name}": shard for shard in shards},
    )
    return hub


@pytest.mark.parametrize(("tag", "files"), [("", 1), (":q8_0", 1), (":F16", 3)])
def test_llama_server_downloads_a_model_from_the_hub_and_answers(
    repo: FakeHub, tmp_path: Path, tag: str, files: int
) -> None:
    with _running(tmp_path, repo.endpoint, "-hf", REPO + tag) as url:
        assert _completion(url)
    sent = [request for request in repo.requests("cdn") if request.method == "GET"]
    assert len(sent) == files
    assert not repo.leaks


def test_llama_server_finds_its_download_again_without_the_hub(
    repo: FakeHub, tmp_path: Path
) -> None:
    with _running(tmp_path, repo.endpoint, "-hf", f"{REPO}:Q8_0"):
        pass
    with _running(tmp_path, "http://127.0.0.1:9", "-hf", f"{REPO}:Q8_0", "--offline") as url:
        assert _completion(url)
