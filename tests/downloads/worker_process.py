"""A process that runs the queue until its jobs have ended, to be killed by a test.

``python -m tests.downloads.worker_process ENDPOINT FOLDER [REFERENCE]``
"""

from __future__ import annotations

import sys
from pathlib import Path

from llamactl.config import Config, load_config
from llamactl.database import Database
from llamactl.downloads.queue import DownloadQueue
from llamactl.downloads.tuning import KIB, Tuning
from llamactl.hub.client import HubClient
from llamactl.models.cache import ModelCache
from llamactl.models.disk import TEMPORARY_PREFIX
from llamactl.models.reference import ModelRef

CONNECTIONS = 4
TUNING = Tuning(
    piece_size=256 * KIB,
    request_size=192 * KIB,
    longest_request=192 * KIB,
    read_size=32 * KIB,
    record_interval=0.05,
    first_pause=0.02,
    steal_above=60.0,
    longest_pause=0.1,
)


def config_for(endpoint: str, folder: Path) -> Config:
    return load_config(
        environ={"HOME": str(folder), "HF_ENDPOINT": endpoint},
        overrides={
            "data_dir": str(folder / "data"),
            "backends.llama-cpp.cache_dir": str(folder / "caches" / "flat"),
            "backends.llama-cpp.hub_dir": str(folder / "caches" / "hub"),
            "downloads.min_free_space": 0,
            "downloads.connections": CONNECTIONS,
        },
    )


def leftovers(folder: Path) -> list[Path]:
    """What a killed process may not leave for ever, once the next one is done.

    A name that lives for a moment only is swept away by the cache when it has become old.
    """
    found = folder.rglob("*.incomplete")
    return [path for path in found if not path.name.startswith(TEMPORARY_PREFIX)]


def main(endpoint: str, folder: str, reference: str | None = None) -> int:
    config = config_for(endpoint, Path(folder))
    database = Database(config.database_file)
    database.open()
    cache = ModelCache(
        config.llama_cpp.cache_dir, config.llama_cpp.hub_dir, database, in_use=lambda paths: []
    )
    hub = HubClient(endpoint, lambda: None, False)
    queue = DownloadQueue(config, database, hub, cache, tuning=TUNING)
    queue.start()
    if reference is not None:
        queue.submit(ModelRef.parse(reference))
    print("started", flush=True)
    ended = [queue.wait(snapshot.job.id, 100) for snapshot in queue.jobs()]
    queue.request_stop()
    queue.join()
    database.close()
    for snapshot in ended:
        print(snapshot.job.status, snapshot.job.error_code, flush=True)
    return 0 if all(snapshot.job.status == "completed" for snapshot in ended) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
