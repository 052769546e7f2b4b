"""The hub as the rest of the program sees it: what there is, and where its bytes are."""

from __future__ import annotations

import threading
from collections.abc import Callable

import llamactl
from llamactl.errors import BadMetadata, HubOffline, NoSuchTag
from llamactl.hub import listing, urls
from llamactl.hub.locating import locate
from llamactl.hub.refusals import Asked, refusal, said
from llamactl.hub.remote import RemoteFile, SearchHit
from llamactl.hub.transport import Reply, Transport
from llamactl.models.hubfile import HubFile, Manifest
from llamactl.models.names import check_commit, check_repo_id
from llamactl.models.reference import ModelRef
from llamactl.secret import Secret

#: The hub names the GGUF files of a manifest only to programs that begin like this.
USER_AGENT = f"llama-cpp/llamactl/{llamactl.__version__}"

MAX_PAGES = 20
MAX_FILES = 20_000


class HubClient:
    """Asks one hub. Safe to use from many threads.

    Every method may raise the errors of ``TransferError``, each with its remedy, and
    ``Interrupted`` as soon as its ``halt`` is set. What may pass by itself is tried again a few
    times; a wait of more than some seconds becomes ``RateLimited`` with the time to come back.
    """

    def __init__(
        self,
        endpoint: str,
        token: Callable[[], Secret | None],
        offline: bool,
        *,
        backoff: float = 0.5,
    ) -> None:
        """``backoff``: seconds before the second attempt; each further one doubles it."""
        self.endpoint = endpoint.rstrip("/")
        self._offline = offline
        self._transport = Transport(self.endpoint, token, USER_AGENT, backoff=backoff)

    def manifest(self, ref: ModelRef, halt: threading.Event | None = None) -> Manifest | None:
        """The hub's own choice of files for a tag; None where the hub (a mirror) makes none.

        Raises ``NoSuchTag`` for a tag that the hub does not know.
        """
        reply = self._get(urls.manifest_url(self.endpoint, ref.repo_id, ref.tag), halt)
        if _no_such_route(reply) or (reply.status == 200 and _is_html(reply)):
            return None
        if reply.status == 400:
            raise NoSuchTag(f"{ref.repo_id} has no {ref.tag!r}: {said(reply.headers, reply.body)}")
        self._refuse(reply, ref.repo_id)
        return Manifest.parse(reply.body)

    def commit(self, repo_id: str, halt: threading.Event | None = None) -> str:
        """The commit that ``main`` is at now."""
        reply = self._get(urls.refs_url(self.endpoint, repo_id), halt)
        if _no_such_route(reply):
            reply = self._get(urls.revision_url(self.endpoint, repo_id, "main"), halt)
            self._refuse(reply, repo_id)
            return listing.info_commit(listing.parse_json(reply.body))
        self._refuse(reply, repo_id)
        return listing.main_commit(listing.parse_json(reply.body))

    def tree(self, repo_id: str, commit: str, halt: threading.Event | None = None) -> list[HubFile]:
        """Every file at a commit, those in folders too, in the hub's order.

        Raises ``BadMetadata`` for a list that is endless, contradicts itself, or holds names that
        no file of a cache may have.
        """
        url: str | None = urls.tree_url(self.endpoint, repo_id, check_commit(commit))
        files: dict[str, HubFile] = {}
        seen: set[str] = set()
        while url is not None:
            if url in seen or len(seen) == MAX_PAGES:
                raise BadMetadata(f"The list of files of {repo_id} does not end")
            seen.add(url)
            reply = self._get(url, halt)
            self._refuse(reply, repo_id)
            for file in listing.tree_files(listing.parse_json(reply.body)):
                if files.setdefault(file.filename, file) != file:
                    raise BadMetadata(f"The hub lists {file.filename!r} twice")
            if len(files) > MAX_FILES:
                raise BadMetadata(f"{repo_id} has more than {MAX_FILES} files")
            url = self._following(reply)
        return list(files.values())

    def resolve(
        self,
        repo_id: str,
        commit: str,
        filename: str,
        halt: threading.Event | None = None,
        *,
        expected: HubFile | None = None,
    ) -> RemoteFile:
        """Where a file's bytes are.

        ``expected`` is the file as the tree lists it: ``BadMetadata`` is raised when the hub now
        says another size or digest, and a mirror that says neither is taken to have these bytes.
        """
        self._check_online()
        asked = Asked(self.endpoint, repo_id, filename)
        url = urls.resolve_url(
            self.endpoint, check_repo_id(repo_id), check_commit(commit), filename
        )
        return locate(self._transport, asked, url, commit, expected, halt)

    def beginning(
        self,
        repo_id: str,
        commit: str,
        filename: str,
        count: int,
        halt: threading.Event | None = None,
    ) -> bytes:
        """The first ``count`` bytes of a file, or all of a shorter one.

        They are not verified: good for a look at a header, and for nothing that is kept.
        """
        self._check_online()
        url = urls.resolve_url(
            self.endpoint, check_repo_id(repo_id), check_commit(commit), filename
        )
        wanted = {"Range": f"bytes=0-{count - 1}"}
        reply = self._transport.request("GET", url, halt=halt, accept="*/*", headers=wanted)
        if reply.status != 206:
            self._refuse(reply, repo_id)
        return reply.body[:count]

    def search(
        self, text: str, limit: int = 20, halt: threading.Event | None = None
    ) -> list[SearchHit]:
        """Repositories with GGUF files whose names hold ``text``, the most downloaded first."""
        reply = self._get(urls.search_url(self.endpoint, text, limit), halt)
        self._refuse(reply, "this search")
        return listing.search_hits(listing.parse_json(reply.body))

    def _get(self, url: str, halt: threading.Event | None) -> Reply:
        self._check_online()
        return self._transport.request("GET", url, halt=halt)

    def _check_online(self) -> None:
        if self._offline:
            raise HubOffline(
                "The hub is not asked, since HF_HUB_OFFLINE is set",
                hint="Unset it; a server that runs must be restarted",
            )

    def _refuse(self, reply: Reply, repo_id: str) -> None:
        """Raise what a refusal means; an answer of 200 passes."""
        if reply.status != 200:
            asked = Asked(self.endpoint, repo_id, with_token=reply.with_token)
            raise refusal(asked, reply.status, reply.headers, reply.body)

    def _following(self, reply: Reply) -> str | None:
        """The next page, which must be the hub's own: the token would go there."""
        following = listing.next_page(reply.headers.get("Link", ""))
        if following is None:
            return None
        target = urls.redirect_target(reply.url, following)
        if not urls.same_origin(target, self.endpoint):
            raise BadMetadata("The hub's list of files goes on at another host")
        return target


def _no_such_route(reply: Reply) -> bool:
    """Whether a mirror has no such page, as against a hub that knows of no such repository."""
    explained = "X-Error-Code" in reply.headers or "X-Error-Message" in reply.headers
    return reply.status in (404, 405, 501) and not explained


def _is_html(reply: Reply) -> bool:
    return "html" in reply.headers.get("Content-Type", "")
