"""What a repository holds: its commit, its files, the manifest of a tag, a search."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from llamactl.errors import BadMetadata, EntryNotFound, HubOffline, NoSuchTag
from llamactl.hub.client import HubClient
from llamactl.models.hubfile import HubFile
from llamactl.models.reference import ModelRef
from tests.fakes.fake_hub import FakeHub
from tests.hub.conftest import FILES, REPO, ClientFactory


def test_commit_is_where_main_points(client: HubClient, commit: str) -> None:
    assert client.commit(REPO) == commit


def test_commit_follows_main_when_it_moves(client: HubClient, hub: FakeHub, commit: str) -> None:
    moved = hub.push(REPO, {"new.gguf": b"new"})
    assert client.commit(REPO) == moved != commit


def test_commit_comes_from_the_info_of_a_mirror_without_refs(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    hub.routes.refs = False
    assert client.commit(REPO) == commit


@pytest.mark.parametrize("target", ["../../../etc/passwd", "a" * 39, "A" * 40, None, 7, ["a"]])
def test_a_commit_that_is_no_commit_is_refused(
    client: HubClient, hub: FakeHub, target: object
) -> None:
    refs = {"branches": [{"name": "main", "targetCommit": target}]}
    hub.fault("hub", "/refs", kind="status", status=200, body=json.dumps(refs).encode())
    with pytest.raises(BadMetadata):
        client.commit(REPO)


@pytest.mark.parametrize("refs", [[], {}, {"branches": []}, {"branches": ["main"]}])
def test_a_list_of_branches_that_is_none_is_refused(
    client: HubClient, hub: FakeHub, refs: object
) -> None:
    hub.fault("hub", "/refs", kind="status", status=200, body=json.dumps(refs).encode())
    with pytest.raises(BadMetadata, match="branch"):
        client.commit(REPO)


def test_the_tree_lists_every_file_with_size_and_digest_also_in_folders(
    client: HubClient, commit: str
) -> None:
    found = {file.filename: file for file in client.tree(REPO, commit)}
    assert set(found) == set(FILES)
    for name, payload in FILES.items():
        assert found[name].size == len(payload)
        if name.endswith(".gguf"):
            assert found[name].oid == hashlib.sha256(payload).hexdigest()
        else:
            blob = b"blob %d\0" % len(payload) + payload
            assert found[name].oid == hashlib.sha1(blob).hexdigest()


def test_the_tree_keeps_the_order_of_the_hub(client: HubClient, hub: FakeHub, commit: str) -> None:
    backwards = sorted(FILES, reverse=True)
    hub.routes.repos[REPO].order = backwards.index
    assert [file.filename for file in client.tree(REPO, commit)] == backwards


def test_a_tree_of_many_pages_is_read_to_its_end(client: HubClient, hub: FakeHub) -> None:
    repo = hub.add_repo("org/many", {f"m-{n:04d}.gguf": b"%d" % n for n in range(1050)})
    hub.routes.page_size = 100
    assert len(client.tree("org/many", repo.main)) == 1050
    assert len(hub.requests("hub", "/tree/")) == 11


def test_the_old_commit_is_still_listed_after_main_moved(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    hub.push(REPO, {"m-Q4_K_M.gguf": b"changed"})
    names = {file.filename: file.size for file in client.tree(REPO, commit)}
    assert names["m-Q4_K_M.gguf"] == len(FILES["m-Q4_K_M.gguf"])


def test_a_tree_that_links_its_pages_in_a_circle_is_refused(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    circle = f'<{hub.endpoint}/api/models/{REPO}/tree/{commit}?recursive=true>; rel="next"'
    hub.fault("hub", "/tree/", kind="headers", headers={"Link": circle}, times=None)
    with pytest.raises(BadMetadata, match="does not end"):
        client.tree(REPO, commit)


def test_a_tree_of_endless_new_pages_is_refused(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    hub.routes.page_size = 1
    hub.push(REPO, {f"{n}.gguf": b"" for n in range(40)})
    with pytest.raises(BadMetadata, match="does not end"):
        client.tree(REPO, hub.routes.repos[REPO].main)


def test_a_next_page_at_another_host_is_not_asked_for(
    hub: FakeHub, make_client: ClientFactory, commit: str
) -> None:
    elsewhere = f'<{hub.cdn_endpoint}/api/models/x/tree/main>; rel="next"'
    hub.fault("hub", "/tree/", kind="headers", headers={"Link": elsewhere})
    with pytest.raises(BadMetadata, match="another host"):
        make_client(token=hub.token).tree(REPO, commit)
    assert hub.requests("cdn") == []


def _row(**changes: Any) -> dict[str, Any]:
    return {"type": "file", "path": "m.gguf", "size": 3, "oid": "a" * 40} | changes


@pytest.mark.parametrize(
    "row",
    [
        _row(path="../m.gguf"),
        _row(path="/etc/m.gguf"),
        _row(path="a/../../m.gguf"),
        _row(path="a//m.gguf"),
        _row(path="../notes.txt"),
        _row(path="a\\..\\b.txt"),
        _row(path="C:\\m.gguf"),
        _row(path="C:m.gguf"),
        _row(path="m\n.gguf"),
        _row(path="m\0.txt"),
        _row(path="x" * 300 + ".gguf"),
        _row(path="/".join("d" * 50) + "/m.gguf"),
        _row(path=None),
        _row(path=["m.gguf"]),
        _row(oid="../../etc"),
        _row(oid="a" * 39),
        _row(oid="A" * 40),
        _row(oid=None),
        _row(size=-1),
        _row(size=1 << 50),
        _row(size="3"),
        _row(size=True),
        _row(size=3.0),
        _row(lfs="x"),
        _row(lfs={}),
        _row(lfs={"oid": "b" * 63, "size": 3}),
        _row(lfs={"oid": "b" * 64, "size": -3}),
    ],
    ids=lambda row: ascii({k: str(v)[:20] for k, v in row.items()}),
)
def test_a_hostile_entry_makes_the_whole_listing_refused(
    client: HubClient, hub: FakeHub, commit: str, row: dict[str, Any]
) -> None:
    hub.routes.repos[REPO].rewrite_rows = lambda rows: [*rows, row]
    with pytest.raises(BadMetadata):
        client.tree(REPO, commit)


def test_one_name_with_two_contents_is_refused(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    hub.routes.repos[REPO].rewrite_rows = lambda rows: [_row(), _row(oid="b" * 40)]
    with pytest.raises(BadMetadata, match="twice"):
        client.tree(REPO, commit)


def test_a_picture_whose_name_cannot_be_stored_is_left_out(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    hub.routes.repos[REPO].rewrite_rows = lambda rows: [_row(path="a: b.png"), _row()]
    assert client.tree(REPO, commit) == [HubFile("m.gguf", 3, "a" * 40)]


def test_odd_names_that_are_safe_are_listed_and_located(client: HubClient, hub: FakeHub) -> None:
    names = [
        "a b.gguf",
        "50%.gguf",
        "#1.gguf",
        "what?.gguf",
        "größe.gguf",
        "模型/模型-Q4_0.gguf",
        "+&=.gguf",
    ]
    repo = hub.add_repo("org/odd", {name: name.encode() for name in names})
    files = client.tree("org/odd", repo.main)
    assert {file.filename for file in files} == set(names)
    for file in files:
        remote = client.resolve("org/odd", repo.main, file.filename, expected=file)
        assert remote.oid == hashlib.sha256(file.filename.encode()).hexdigest()


def test_the_size_of_an_lfs_file_is_that_of_its_bytes_not_of_its_pointer(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    lfs = {"oid": "b" * 64, "size": 10**10, "pointerSize": 135}
    hub.routes.repos[REPO].rewrite_rows = lambda rows: [_row(size=135, lfs=lfs)]
    assert client.tree(REPO, commit) == [HubFile("m.gguf", 10**10, "b" * 64)]


@pytest.mark.parametrize(
    "body",
    [
        b"<html>login</html>",
        b"",
        b"{}",
        b"[1]",
        b"[" * 100_000,
        b'[{"type":"file","path":"m","oid":"' + b"a" * 40 + b'","size":' + b"9" * 6000 + b"}]",
        b"\xff\xfe\x00",
        b"null",
    ],
    ids=["html", "empty", "object", "numbers", "nested", "huge number", "no utf-8", "null"],
)
def test_a_listing_that_is_none_is_refused(
    client: HubClient, hub: FakeHub, commit: str, body: bytes
) -> None:
    hub.fault("hub", "/tree/", kind="status", status=200, body=body, times=None)
    with pytest.raises(BadMetadata):
        client.tree(REPO, commit)


def test_an_answer_of_enormous_length_is_cut_off(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    enormous = b"[" + b" " * (40 << 20)
    hub.fault("hub", "/tree/", kind="status", status=200, body=enormous, times=None)
    with pytest.raises(BadMetadata, match="longer than"):
        client.tree(REPO, commit)


def test_a_compressed_answer_is_refused(client: HubClient, hub: FakeHub, commit: str) -> None:
    hub.fault("hub", "/tree/", kind="gzip", times=None)
    with pytest.raises(BadMetadata, match="compressed"):
        client.tree(REPO, commit)


def test_the_manifest_names_the_files_of_a_tag_and_is_kept_as_received(
    client: HubClient, hub: FakeHub
) -> None:
    hub.add_repo("org/eyes", {"e-Q8_0.gguf": b"m", "mmproj-F16.gguf": b"p"})
    manifest = client.manifest(ModelRef("org/eyes", "q8_0"))
    assert manifest is not None
    assert (manifest.gguf, manifest.mmproj) == ("e-Q8_0.gguf", "mmproj-F16.gguf")
    assert manifest.raw.startswith(b'{"schemaVersion":2')


def test_the_manifest_is_asked_for_as_llama_cpp_asks(client: HubClient, hub: FakeHub) -> None:
    client.manifest(ModelRef(REPO))
    [request] = hub.requests("hub", "/manifests/latest")
    assert request.headers["user-agent"].startswith("llama-cpp")


def test_a_tag_that_does_not_exist_is_said_so(client: HubClient) -> None:
    with pytest.raises(NoSuchTag, match="not a valid quantization"):
        client.manifest(ModelRef(REPO, "Q9_X"))


def test_a_tag_that_is_a_path_reaches_the_hub_whole(client: HubClient) -> None:
    manifest = client.manifest(ModelRef(REPO, "deep/er/m-BF16.gguf"))
    assert manifest is not None
    assert manifest.gguf == "deep/er/m-BF16.gguf"


def test_a_mirror_without_manifests_gives_none(client: HubClient, hub: FakeHub) -> None:
    hub.routes.manifests = False
    assert client.manifest(ModelRef(REPO)) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(405, "text/html"), (200, "text/html; charset=x"), (404, "application/json")],
)
def test_a_mirror_that_answers_manifests_with_something_else_gives_none(
    client: HubClient, hub: FakeHub, status: int, kind: str
) -> None:
    hub.fault(
        "hub",
        "/v2/",
        kind="status",
        status=status,
        headers={"Content-Type": kind},
        body=b'{"detail":"Not Found"}',
    )
    assert client.manifest(ModelRef(REPO)) is None


def test_an_old_name_is_followed_to_the_present_one(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    hub.rename("old/name", REPO)
    assert client.commit("old/name") == commit
    files = client.tree("old/name", commit)
    assert {file.filename for file in files} == set(FILES)
    assert client.resolve("old/name", commit, "m-Q8_0.gguf").size == len(FILES["m-Q8_0.gguf"])
    assert client.manifest(ModelRef("old/name")) is not None


def test_search_finds_gguf_repositories_the_most_downloaded_first(
    client: HubClient, hub: FakeHub
) -> None:
    hub.add_repo("a/llama-GGUF", {}, downloads=5, likes=2)
    hub.add_repo("b/Llama-GGUF", {}, downloads=50, gated="manual")
    hub.add_repo("c/other", {}, downloads=500)
    hits = client.search("llama")
    assert [hit.repo_id for hit in hits] == ["b/Llama-GGUF", "a/llama-GGUF"]
    assert (hits[1].downloads, hits[1].likes, hits[1].gated) == (5, 2, False)
    assert hits[0].gated
    assert hits[0].updated == 1741775405.0


def test_search_leaves_out_what_could_not_be_downloaded(client: HubClient, hub: FakeHub) -> None:
    body = b'[{"id":"../x"},{"id":7},7,{"id":"ok/ok","lastModified":"never","likes":true}]'
    hub.fault("hub", "/api/models", kind="status", status=200, body=body)
    [hit] = client.search("x")
    assert (hit.repo_id, hit.likes, hit.updated) == ("ok/ok", 0, None)


def test_a_search_that_answers_no_list_is_refused(client: HubClient, hub: FakeHub) -> None:
    hub.fault("hub", "/api/models", kind="status", status=200, body=b'{"error": "busy"}')
    with pytest.raises(BadMetadata, match="search"):
        client.search("x")


def test_offline_nothing_is_asked(make_client: ClientFactory, hub: FakeHub, commit: str) -> None:
    client = make_client(offline=True)
    for call in (
        lambda: client.commit(REPO),
        lambda: client.tree(REPO, commit),
        lambda: client.manifest(ModelRef(REPO)),
        lambda: client.resolve(REPO, commit, "m-Q8_0.gguf"),
        lambda: client.search("x"),
    ):
        with pytest.raises(HubOffline, match="HF_HUB_OFFLINE"):
            call()
    assert hub.log == []


def test_a_large_listing_of_many_files_has_a_limit(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    rows = [_row(path=f"{n}.gguf") for n in range(20_001)]
    hub.routes.repos[REPO].rewrite_rows = lambda _: rows
    hub.routes.page_size = 30_000
    with pytest.raises(BadMetadata, match="more than 20000"):
        client.tree(REPO, commit)


def test_the_beginning_of_a_file_is_had_without_the_rest(
    client: HubClient, commit: str, hub: FakeHub
) -> None:
    whole = FILES["m-Q4_K_M.gguf"]
    assert client.beginning(REPO, commit, "m-Q4_K_M.gguf", 1000) == whole[:1000]
    assert client.beginning(REPO, commit, "m-Q4_K_M.gguf", 10**6) == whole
    assert hub.bytes_sent("cdn") + hub.bytes_sent("hub") < 3 * len(whole)
    with pytest.raises(EntryNotFound):
        client.beginning(REPO, commit, "m-Q2_K.gguf", 10)
