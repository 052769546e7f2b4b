"""What the hub and its CDN answer to each request, before any fault."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from tests.fakes.fake_hub_faults import Answer
from tests.fakes.fake_hub_http import Request
from tests.fakes.fake_hub_store import Entry, Repo

QUOTAS = {"api": 1000, "resolvers": 5000, "pages": 100}
EXPOSED = (
    "X-Repo-Commit,X-Request-Id,X-Error-Code,X-Error-Message,X-Total-Count,ETag,Link,"
    "Accept-Ranges,Content-Range,X-Linked-Size,X-Linked-ETag,X-Xet-Hash"
)


class Refusal(Exception):
    """An answer that ends a route early."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def _json(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    payload = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    named = {"Content-Type": "application/json; charset=utf-8"}
    return Answer.of(status, payload, named | dict(headers or {}))


def _error(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    named = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return _json(status, {"error": message}, named | headers)


def not_modified(request: Request, answer: Answer) -> Answer:
    """304 where the client already has what the answer's ETag names."""
    etag = answer.headers.get("ETag", "").removeprefix("W/")
    asked = [
        part.strip().removeprefix("W/")
        for part in request.headers.get("if-none-match", "").split(",")
    ]
    if answer.status == 200 and etag and (etag in asked or "*" in asked):
        kept = {k: v for k, v in answer.headers.items() if k != "Content-Length"}
        return Answer(304, kept)
    return answer


def ranged(request: Request, entry_size: int) -> tuple[int, int, int]:
    """The status, the start and the end (not included) of what a Range header asks for."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if match is None or match.groups() == ("", ""):
        return 200, 0, entry_size
    first, last = match.groups()
    if not first:
        return 206, max(0, entry_size - int(last)), entry_size
    start = int(first)
    end = min(entry_size, int(last) + 1) if last else entry_size
    return (206, start, end) if start < entry_size and start < end else (416, 0, 0)


class Signer:
    """Signs the CDN's urls; `revoke()` makes every url signed so far expire."""

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self._generation = 0

    def revoke(self) -> None:
        self._generation += 1

    def query(self, path: str) -> dict[str, str]:
        expires = str(int(time.time() + self.lifetime))
        return {"Expires": expires, "Signature": self._sign(path, expires), "Key-Pair-Id": "KFAKE"}

    def accepts(self, path: str, query: Mapping[str, list[str]]) -> bool:
        expires = query.get("Expires", ["0"])[0]
        signature = query.get("Signature", [""])[0]
        right = hmac.compare_digest(signature, self._sign(path, expires))
        return right and int(expires) > time.time()

    def _sign(self, path: str, expires: str) -> str:
        message = f"{self._generation} {path} {expires}".encode()
        return hmac.new(b"fake-hub", message, hashlib.sha256).hexdigest()


class HubRoutes:
    """The hub's own origin."""

    def __init__(self, signer: Signer, cdn_url: Callable[[], str]) -> None:
        self.repos: dict[str, Repo] = {}
        self.renamed: dict[str, str] = {}
        self.token = "hf_" + "fakehubtoken" * 3
        self.page_size = 1000
        self.manifests = True
        self.refs = True
        self.direct = False
        self.url = ""
        self._signer = signer
        self._cdn_url = cdn_url
        self._lock = threading.Lock()
        self._left = dict(QUOTAS)
        self._routes: list[tuple[re.Pattern[str], Callable[..., Answer]]] = [
            (re.compile(r"/api/models"), self._search),
            (re.compile(r"/api/whoami-v2"), self._whoami),
            (re.compile(r"/api/models/([^/]+/[^/]+)/refs"), self._refs),
            (re.compile(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?"), self._tree),
            (re.compile(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)"), self._info),
            (re.compile(r"/api/models/([^/]+/[^/]+)()"), self._info),
            (re.compile(r"/api/resolve-cache/models/([^/]+/[^/]+)/([^/]+)/(.+)"), self._small),
            (re.compile(r"/v2/([^/]+/[^/]+)/manifests/(.+)"), self._manifest),
            (re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)"), self._resolve),
        ]

    def answer(self, request: Request) -> Answer:
        """Route one request; every answer carries the headers that the hub always sends."""
        answer = self._route(request)
        bucket = "resolvers" if "/resolve" in request.path else "api"
        with self._lock:
            self._left[bucket] = max(0, self._left[bucket] - 1)
            left = self._left[bucket]
        for name, value in {
            "RateLimit": f'"{bucket}";r={left};t=241',
            "RateLimit-Policy": f'"fixed window";"{bucket}";q={QUOTAS[bucket]};w=300',
            "X-Request-Id": f"Root=1-{len(self.repos):08x}-fake",
            "X-Powered-By": "huggingface-moon",
            "Access-Control-Expose-Headers": EXPOSED,
            "Vary": "Origin",
        }.items():
            answer.headers.setdefault(name, value)
        return answer

    def _route(self, request: Request) -> Answer:
        path = unquote(request.path)
        for pattern, route in self._routes:
            match = pattern.fullmatch(path)
            if match is not None:
                try:
                    return route(request, *match.groups())
                except Refusal as refusal:
                    return refusal.answer
        html = {"Content-Type": "text/html; charset=utf-8"}
        return Answer.of(404, b"<!doctype html><title>404</title>Not found", html)

    def _authorized(self, request: Request) -> bool:
        """Whether a right token came; a wrong one is refused even for what is public."""
        header = request.headers.get("authorization")
        if header is None:
            return False
        if header != f"Bearer {self.token}":
            raise Refusal(_error(401, "Invalid credentials in Authorization header"))
        return True

    def _repo(self, request: Request, repo_id: str) -> Repo:
        known = self._authorized(request)
        canonical = self.renamed.get(repo_id.lower(), repo_id)
        repo = self.repos.get(canonical)
        if repo is None or (repo.private and not known):
            if known:
                raise Refusal(_error(404, "Repository not found", "RepoNotFound"))
            realm = 'Bearer realm="Authentication required", charset="UTF-8"'
            refused = _error(401, "Invalid username or password.")
            refused.headers["WWW-Authenticate"] = realm
            raise Refusal(refused)
        if repo.disabled:
            raise Refusal(_error(403, "Access to this resource is disabled."))
        if canonical != repo_id:
            location = quote(unquote(request.path).replace(repo_id, canonical, 1))
            location += f"?{request.query}" if request.query else ""
            raise Refusal(Answer.of(307, b"", {"Location": location}))
        return repo

    def _revision(self, repo: Repo, revision: str) -> dict[str, Entry]:
        tree = repo.tree(revision)
        if tree is None:
            raise Refusal(_error(404, f"Invalid rev id: {revision}", "RevisionNotFound"))
        return tree

    def _whoami(self, request: Request) -> Answer:
        if not self._authorized(request):
            return _error(401, "Invalid username or password.")
        return _json(200, {"type": "user", "name": "tester", "auth": {"type": "access_token"}})

    def _search(self, request: Request) -> Answer:
        self._authorized(request)
        query = parse_qs(request.query)
        text = query.get("search", [""])[0].lower()
        found = [
            repo
            for repo in self.repos.values()
            if text in repo.repo_id.lower() and not repo.private
        ]
        found.sort(key=lambda repo: -repo.downloads)
        return _json(200, [repo.summary() for repo in found[: int(query.get("limit", ["30"])[0])]])

    def _refs(self, request: Request, repo_id: str) -> Answer:
        repo = self._repo(request, repo_id)
        if not self.refs:
            return Answer.of(404, b"<html>no such page</html>", {"Content-Type": "text/html"})
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.main}
        return _json(200, {"tags": [], "branches": [main], "converts": []})

    def _info(self, request: Request, repo_id: str, revision: str) -> Answer:
        repo = self._repo(request, repo_id)
        self._revision(repo, revision or "main")
        blobs = "blobs" in parse_qs(request.query)
        return _json(200, repo.info(revision or "main", blobs))

    def _tree(self, request: Request, repo_id: str, revision: str, folder: str | None) -> Answer:
        repo = self._repo(request, repo_id)
        self._revision(repo, revision)
        query = parse_qs(request.query)
        recursive = query.get("recursive", [""])[0].lower() in ("true", "1")
        rows = repo.rows(revision, (folder or "").strip("/"), recursive)
        limit = min(int(query.get("limit", [str(self.page_size)])[0]), self.page_size)
        cursor = query.get("cursor", [""])[0]
        start = int(base64.b64decode(cursor).decode()) if cursor else 0
        headers = {}
        if start + limit < len(rows):
            following = base64.b64encode(str(start + limit).encode()).decode()
            again = urlencode(
                {k: v[0] for k, v in query.items()} | {"limit": str(limit), "cursor": following}
            )
            headers["Link"] = f'<{self.url}{request.path}?{again}>; rel="next"'
        return _json(200, rows[start : start + limit], headers)

    def _manifest(self, request: Request, repo_id: str, tag: str) -> Answer:
        if not self.manifests:
            return Answer.of(404, b"<html>no such page</html>", {"Content-Type": "text/html"})
        repo = self._repo(request, repo_id)
        self._refuse_gated(request, repo)
        llama_cpp = request.headers.get("user-agent", "").startswith("llama-cpp")
        body = repo.manifest(tag, llama_cpp)
        if isinstance(body, str):
            return _error(400, body)
        answer = _json(
            200, body, {"Cache-Control": "public, max-age=60", "Vary": "Origin,User-Agent"}
        )
        payload = answer.content.read(0, answer.end)
        answer.headers["ETag"] = f'W/"{hashlib.sha1(payload).hexdigest()}"'
        return not_modified(request, answer)

    def _refuse_gated(self, request: Request, repo: Repo) -> None:
        if repo.gated and not repo.granted:
            message = (
                f"Access to model {repo.repo_id} is restricted. You must have access to it "
                "and be authenticated to access it. Please log in."
            )
            status = 403 if self._authorized(request) else 401
            raise Refusal(_error(status, message, "GatedRepo"))
        if repo.gated and not self._authorized(request):
            message = f"Access to model {repo.repo_id} is restricted. Please log in."
            raise Refusal(_error(401, message, "GatedRepo"))

    def _entry(
        self, request: Request, repo_id: str, revision: str, path: str
    ) -> tuple[Repo, Entry]:
        repo = self._repo(request, repo_id)
        self._refuse_gated(request, repo)
        tree = self._revision(repo, revision)
        entry = tree.get(path)
        if entry is None:
            missing = Answer.of(
                404,
                b"Entry not found",
                {
                    "X-Error-Code": "EntryNotFound",
                    "X-Error-Message": "Entry not found",
                    "X-Repo-Commit": repo.commit_of(revision),
                },
            )
            raise Refusal(missing)
        return repo, entry

    def _resolve(self, request: Request, repo_id: str, revision: str, path: str) -> Answer:
        repo, entry = self._entry(request, repo_id, revision, path)
        commit = repo.commit_of(revision)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
        if self.direct:
            return bytes_answer(request, entry, headers | {"ETag": f'"{entry.oid}"'})
        headers["X-Linked-ETag"] = f'"{entry.oid}"'
        if not entry.lfs:
            where = f"/api/resolve-cache/models/{repo_id}/{commit}/{path}"
            query = urlencode({request.path: "", "etag": f'"{entry.oid}"'})
            return Answer.of(
                307,
                b"Temporary Redirect",
                headers
                | {
                    "Location": f"{quote(where)}?{query}",
                    "Content-Disposition": f"inline; filename*=UTF-8''{quote(path)};",
                },
            )
        xet = entry.content.xet_hash
        cdn_path = f"/xet-bridge-us/{hashlib.sha1(repo_id.encode()).hexdigest()[:24]}/{xet}"
        signed = {"X-Xet-Cas-Uid": "public"} | self._signer.query(cdn_path)
        link = (
            f'<{self.url}/api/models/{repo_id}/xet-read-token/{commit}>; rel="xet-auth", '
            f'<{self._cdn_url()}/v1/reconstructions/{xet}>; rel="xet-reconstruction-info"'
        )
        return Answer.of(
            302,
            b"Found. Redirecting",
            headers
            | {
                "Location": f"{self._cdn_url()}{cdn_path}?{urlencode(signed)}",
                "X-Linked-Size": str(entry.content.size),
                "X-Xet-Hash": xet,
                "Link": link,
            },
        )

    def _small(self, request: Request, repo_id: str, revision: str, path: str) -> Answer:
        """A small git file from the hub's own cache; compressed for those who allow it."""
        repo, entry = self._entry(request, repo_id, revision, path)
        headers = {
            "ETag": f'"{entry.oid}"',
            "X-Repo-Commit": repo.commit_of(revision),
            "Content-Type": "text/plain; charset=utf-8",
        }
        answer = not_modified(request, bytes_answer(request, entry, headers))
        gzip_allowed = "gzip" in request.headers.get("accept-encoding", "")
        if answer.status == 200 and gzip_allowed and request.method == "GET":
            answer.replace_body(gzip.compress(entry.content.read(0, entry.content.size)))
            answer.headers["Content-Encoding"] = "gzip"
            answer.headers["Transfer-Encoding"] = "chunked"
            del answer.headers["Content-Length"]
            answer.delivery.chunked = True
        return answer


def bytes_answer(request: Request, entry: Entry, headers: Mapping[str, str]) -> Answer:
    """The file, or the range of it that was asked."""
    status, start, end = ranged(request, entry.content.size)
    answer = Answer(status, dict(headers), entry.content, start, end)
    answer.headers["Content-Length"] = str(end - start)
    if status == 206:
        answer.replace_range(start, end, entry.content.size)
    elif status == 416:
        answer.headers["Content-Range"] = f"bytes */{entry.content.size}"
    return answer


class CdnRoutes:
    """The origin that the bytes come from: signed urls, no credentials."""

    def __init__(self, signer: Signer, entries: Callable[[], Mapping[str, Entry]]) -> None:
        self._signer = signer
        self._entries = entries
        self.etag_salt = ""

    def answer(self, request: Request) -> Answer:
        """Send a blob by its xet hash to whoever shows a signature that still holds."""
        entry = self._entries().get(request.path.rsplit("/", 1)[-1])
        if entry is None or not self._signer.accepts(request.path, parse_qs(request.query)):
            denied = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"
            return Answer.of(403, denied, {"Content-Type": "application/xml"})
        etag = entry.content.xet_hash
        if self.etag_salt:
            etag = hashlib.sha256((self.etag_salt + etag).encode()).hexdigest()
        headers = {
            "ETag": f'"{etag}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "Last-Modified": formatdate(1741775405, usegmt=True),
        }
        stale = request.headers.get("if-range", headers["ETag"]) != headers["ETag"]
        if stale:
            request.headers.pop("range", None)
        return bytes_answer(request, entry, headers)
