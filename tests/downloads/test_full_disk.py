"""A disk that is really full, and a system that really refuses large files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamactl.models.layout import FlatCache
from tests.downloads.conftest import FILE, PAYLOAD, REPO
from tests.downloads.waiting import LONG
from tests.fakes.fake_hub import FakeHub
from tests.requirements import in_own_namespace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

#: A disk of 8 MB: filled while the download runs, freed for the second try.
SCRIPT = """
set -e
mount -t tmpfs -o size=8m tmpfs "$FOLDER/caches"
"$@" >"$FOLDER/first" &
cd "$FOLDER/caches"
until ls hub/models--*/blobs/*.ranges.incomplete >/dev/null 2>&1; do sleep 0.02; done
cd - >/dev/null
dd if=/dev/zero of="$FOLDER/caches/filler" bs=4k >/dev/null 2>&1 || true
wait $! || true
ls "$FOLDER"/caches/flat >"$FOLDER/listed"
rm "$FOLDER/caches/filler"
"$@" >"$FOLDER/second" || true
cp "$FOLDER"/caches/flat/*.gguf "$FOLDER/result"
"""


def worker(hub: FakeHub, folder: Path) -> list[str]:
    module = "tests.downloads.worker_process"
    return [sys.executable, "-m", module, hub.endpoint, str(folder), f"{REPO}:Q4_K_M"]


def test_a_disk_that_fills_up_ends_in_a_clear_state_and_goes_on_once_freed(
    hub: FakeHub, tmp_path: Path
) -> None:
    (tmp_path / "caches").mkdir()
    environment = {**os.environ, "FOLDER": str(tmp_path)}
    hub.throttle(500_000)
    command = [*in_own_namespace(SCRIPT), *worker(hub, tmp_path)]
    subprocess.run(command, env=environment, check=True, timeout=LONG)
    assert (tmp_path / "first").read_text() == "started\nfailed insufficient_space\n"
    assert FILE not in (tmp_path / "listed").read_text()
    assert "completed None" in (tmp_path / "second").read_text()
    assert (tmp_path / "result").read_bytes() == PAYLOAD
    ranges = [request.byte_range for request in hub.requests("cdn")]
    asked = sum(last + 1 - first for first, last in filter(None, ranges))
    assert asked < 2 * len(PAYLOAD), "the second try goes on from the bytes of the first"


def test_a_limit_on_file_sizes_ends_in_a_clear_state(hub: FakeHub, tmp_path: Path) -> None:
    limited = ["sh", "-c", 'ulimit -f 1000; exec "$@"', "sh", *worker(hub, tmp_path)]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=LONG)
    assert done.stdout == "started\nfailed insufficient_space\n"
    assert not FlatCache(tmp_path / "caches" / "flat").path(REPO, FILE).exists()
    assert not [*tmp_path.rglob("*.incomplete")]
    assert hub.requests("cdn") == []
