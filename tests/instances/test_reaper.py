from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamactl.database import Database
from llamactl.instances import processes
from llamactl.instances.reaper import mark_prefix, reap_leftovers
from llamactl.instances.store import InstanceStore, Run
from tests.instances.conftest import PATIENCE, eventually

Sleepers = list[subprocess.Popen[bytes]]
#: The reaper looks at all processes of this user, those of tests in other processes among them.
OURS = Path(f"/data-of-{os.getpid()}")
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def store(database: Database) -> InstanceStore:
    return InstanceStore(database)


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    """Processes that a former life might have left."""
    made: Sleepers = []
    yield made
    for process in made:
        process.kill()
        process.wait()


def sleeper(sleepers: Sleepers, mark: str | None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **({"LLAMACTL_RUN": mark} if mark else {})}
    process = subprocess.Popen(SLEEP, env=environment, start_new_session=True)
    sleepers.append(process)
    # For a moment after the program was replaced it has no environment that could be read.
    eventually(lambda: Path(f"/proc/{process.pid}/environ").read_bytes())
    return process


def run_of(process: subprocess.Popen[bytes], **changes: object) -> Run:
    fields: dict[str, object] = {
        "run_id": f"r{process.pid}",
        "instance": "one",
        "pid": process.pid,
        "start_ticks": processes.start_ticks(process.pid),
        "boot_id": processes.boot_id(),
        "port": 1,
        "started_at": time.time(),
    }
    return Run(**{**fields, **changes})  # type: ignore[arg-type]  # the dictionary is the fields


def test_a_process_with_our_mark_is_ended(store: InstanceStore, sleepers: Sleepers) -> None:
    prefix = mark_prefix(OURS)
    ours = sleeper(sleepers, prefix + "r1")
    assert reap_leftovers(store, prefix) == [ours.pid]
    assert ours.wait(PATIENCE) == -9


def test_another_data_directorys_process_is_left_alone(
    store: InstanceStore, sleepers: Sleepers
) -> None:
    other = sleeper(sleepers, mark_prefix(Path("/another")) + "r1")
    nobodys = sleeper(sleepers, None)
    assert reap_leftovers(store, mark_prefix(OURS)) == []
    assert other.poll() is None and nobodys.poll() is None


def test_a_recorded_process_that_lost_its_mark_is_ended(
    store: InstanceStore, sleepers: Sleepers
) -> None:
    ours = sleeper(sleepers, None)
    store.begin(run_of(ours))
    assert reap_leftovers(store, mark_prefix(OURS)) == [ours.pid]
    assert ours.wait(PATIENCE) == -9
    assert store.runs() == []


@pytest.mark.parametrize(
    "changes",
    [{"start_ticks": 1}, {"boot_id": "before"}, {"start_ticks": None}, {"pid": None}],
    ids=["another start", "another boot", "unknown start", "unknown number"],
)
def test_a_number_that_now_belongs_to_another_is_left_alone(
    store: InstanceStore, sleepers: Sleepers, changes: dict[str, object]
) -> None:
    other = sleeper(sleepers, None)
    store.begin(run_of(other, **changes))
    assert reap_leftovers(store, mark_prefix(OURS)) == []
    assert other.poll() is None
    assert store.runs() == []


def test_whoever_asks_is_left_alone_with_its_ancestors(tmp_path: Path) -> None:
    """A server that is started from within an instance does not end itself."""
    mark = f"self-{os.getpid()}:"
    script = (
        "import sys; from pathlib import Path\n"
        "from llamactl.database import Database\n"
        "from llamactl.instances.reaper import reap_leftovers\n"
        "from llamactl.instances.store import InstanceStore\n"
        "database = Database(Path(sys.argv[1])); database.open()\n"
        f"print(reap_leftovers(InstanceStore(database), '{mark}'))\n"
    )
    command = f'{sys.executable} -c "$SCRIPT" {tmp_path / "x.db"}; echo survived'
    done = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "LLAMACTL_RUN": f"{mark}1", "SCRIPT": script},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["[]", "survived"], done.stderr


def test_the_start_time_is_read_whatever_the_program_is_called(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 1 ("
    odd.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(odd), "600"])
    eventually(lambda: b"600" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
    plain = subprocess.Popen(["sleep", "600"])
    first, second = processes.start_ticks(process.pid), processes.start_ticks(plain.pid)
    assert first is not None and second is not None and 0 <= second - first < 10_000
    for each in (process, plain):
        each.kill()
        each.wait()
    assert processes.start_ticks(plain.pid) is None
