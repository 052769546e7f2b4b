"""A Hugging Face Hub on loopback, hub and CDN, faithful enough for its real clients.

In a test:

    with FakeHub() as hub:
        hub.add_repo("org/name-GGUF", {"m-Q4_K_M.gguf": payload, "README.md": b"hello"})
        hub.fault("cdn", r".", kind="cut", after=1000)
        ...  # HF_ENDPOINT = hub.endpoint
        assert not hub.leaks

As a process, serving folders from disk: `python -m tests.fakes.fake_hub --repo org/name=FOLDER`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from tests.fakes.fake_hub_content import Content, seeded_bytes
from tests.fakes.fake_hub_faults import Fault
from tests.fakes.fake_hub_http import OriginServer, Request, Weather
from tests.fakes.fake_hub_routes import CdnRoutes, HubRoutes, Signer
from tests.fakes.fake_hub_store import Entry, Repo

__all__ = ["FakeHub", "Fault", "Repo", "Request", "seeded_bytes"]

LFS_THRESHOLD = 10 << 20
Source = bytes | Path | Content


class FakeHub:
    """Two origins on loopback, H (the hub) and C (its CDN), over the same repositories.

    `routes` holds the switches of a mirror: `manifests`, `refs` (routes that exist), `direct`
    (files are answered by H itself), `page_size`. A token that reaches C is kept in `leaks`.
    """

    def __init__(self, *, host: str = "127.0.0.1") -> None:
        self._weather = Weather()
        self._blobs: dict[str, Entry] = {}
        self.signer = Signer(3600)
        self.routes = HubRoutes(self.signer, lambda: self.cdn_endpoint)
        self.cdn_routes = CdnRoutes(self.signer, lambda: self._blobs)
        self._hub = OriginServer("hub", (host, 0), self._weather, self.routes.answer)
        self._cdn = OriginServer("cdn", (host, 0), self._weather, self._answer_cdn)
        self.routes.url = self.endpoint

    def __enter__(self) -> FakeHub:
        self._hub.start()
        self._cdn.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._weather.closing.set()
        self._hub.close()
        self._cdn.close()

    @property
    def endpoint(self) -> str:
        """H's url, without a trailing slash."""
        return self._hub.url

    @property
    def cdn_endpoint(self) -> str:
        return self._cdn.url

    @property
    def token(self) -> str:
        """The one token that the hub accepts."""
        return self.routes.token

    @property
    def log(self) -> list[Request]:
        """Every request so far, in order of arrival."""
        with self._weather.lock:
            return list(self._weather.log)

    @property
    def leaks(self) -> list[Request]:
        """Requests to the CDN that carried a credential."""
        with self._weather.lock:
            return list(self._weather.leaks)

    def add_repo(
        self,
        repo_id: str,
        files: Mapping[str, Source],
        *,
        private: bool = False,
        gated: bool | str = False,
        granted: bool = False,
        disabled: bool = False,
        lfs_threshold: int = LFS_THRESHOLD,
        downloads: int = 0,
        likes: int = 0,
    ) -> Repo:
        """Add a repository with one commit; `repo.main` is that commit.

        A file is LFS when its name says so (`.gguf` and the like) or from `lfs_threshold` on;
        a Path is served from disk. `granted`: whether the token may read a gated repo.
        """
        repo = Repo(
            repo_id,
            lfs_threshold,
            private=private,
            gated=gated,
            granted=granted,
            disabled=disabled,
            downloads=downloads,
            likes=likes,
        )
        self.routes.repos[repo_id] = repo
        self.push(repo_id, files)
        return repo

    def push(self, repo_id: str, files: Mapping[str, Source], delete: Iterable[str] = ()) -> str:
        """Move the repo's main to a new commit; returns it."""
        repo = self.routes.repos[repo_id]
        commit = repo.push(files, delete)
        for entry in repo.commits[commit].values():
            if entry.lfs:
                self._blobs[entry.content.xet_hash] = entry
        return commit

    def rename(self, old: str, new: str) -> None:
        """Redirect requests for `old` (in any case) to the repo `new`, relatively, by 307."""
        self.routes.renamed[old.lower()] = new

    def fault(self, where: Literal["hub", "cdn"], match: str, *, kind: str, **how: Any) -> Fault:
        """Spoil requests whose path and query match the regex; `Fault` says what can be set."""
        fault = Fault(where, match, kind, **how)
        with self._weather.lock:
            self._weather.faults.append(fault)
        return fault

    def clear_faults(self) -> None:
        """Be well again; what is stalled goes on."""
        with self._weather.lock:
            for fault in self._weather.faults:
                fault.release()
            self._weather.faults.clear()

    def throttle(self, bytes_per_second: int | None) -> None:
        """Send every body at this pace from now on, on each connection; None: as fast as can be."""
        self._weather.rate = bytes_per_second

    def latency(self, seconds: float) -> None:
        """Wait so long before each answer."""
        self._weather.latency = seconds

    def expire_urls(self) -> None:
        """Let every url that was signed so far be refused from now on."""
        self.signer.revoke()

    def clear_log(self) -> None:
        with self._weather.lock:
            self._weather.log.clear()

    def requests(self, where: Literal["hub", "cdn"], match: str = "") -> list[Request]:
        """The logged requests to one origin whose target contains `match`."""
        return [r for r in self.log if r.origin == where and match in r.target]

    def bytes_sent(self, where: Literal["hub", "cdn"] = "cdn") -> int:
        """How many body bytes an origin has sent."""
        return sum(request.bytes_sent for request in self.requests(where))

    def _answer_cdn(self, request: Request) -> Any:
        credentials = ("authorization", "cookie", "proxy-authorization")
        shown = " ".join([request.target, *request.headers.values()])
        if any(name in request.headers for name in credentials) or self.token in shown:
            with self._weather.lock:
                self._weather.leaks.append(request)
        return self.cdn_routes.answer(request)


def _folder(folder: Path) -> dict[str, Source]:
    """Every file below a folder, by its path in the repository."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def main(arguments: list[str] | None = None) -> int:
    """Serve folders until SIGTERM or SIGINT; prints the endpoint when it listens."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fakes.fake_hub", description=main.__doc__
    )
    parser.add_argument("--repo", action="append", default=[], metavar="ORG/NAME=FOLDER")
    parser.add_argument("--throttle", type=int, help="bytes per second on each connection")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with FakeHub() as hub:
        hub.throttle(options.throttle)
        hub.latency(options.latency)
        for repo in options.repo:
            repo_id, _, folder = repo.partition("=")
            hub.add_repo(repo_id, _folder(Path(folder)))
        print(hub.endpoint, flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
