"""Each refusal of the hub is an error of its own, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llamactl.errors import (
    BadMetadata,
    DisabledRepo,
    EntryNotFound,
    GatedRepo,
    LlamactlError,
    RepoNotFound,
    TransferError,
    Unauthorized,
)
from llamactl.hub.client import HubClient
from llamactl.models.reference import ModelRef
from tests.fakes.fake_hub import FakeHub
from tests.hub.conftest import FILES, REPO, ClientFactory

GGUF = "m-Q4_K_M.gguf"


def _every_question(client: HubClient, repo_id: str, commit: str) -> list[Callable[[], object]]:
    return [
        lambda: client.manifest(ModelRef(repo_id)),
        lambda: client.commit(repo_id),
        lambda: client.tree(repo_id, commit),
        lambda: client.resolve(repo_id, commit, GGUF),
    ]


def test_a_repository_that_does_not_exist_is_not_found(client: HubClient, commit: str) -> None:
    for ask in _every_question(client, "org/nothing", commit):
        with pytest.raises(RepoNotFound, match=r"does not exist, or it is private.*HF_TOKEN"):
            ask()


def test_a_private_repository_asks_for_a_token(
    client: HubClient, hub: FakeHub, commit: str
) -> None:
    repo = hub.add_repo("org/private", FILES, private=True)
    for ask in _every_question(client, "org/private", repo.main):
        with pytest.raises(RepoNotFound, match="HF_TOKEN"):
            ask()


def test_a_private_repository_opens_with_the_token(
    make_client: ClientFactory, hub: FakeHub
) -> None:
    repo = hub.add_repo("org/private", FILES, private=True)
    for ask in _every_question(make_client(token=hub.token), "org/private", repo.main):
        assert ask()


def test_with_a_token_a_missing_repository_is_a_matter_of_spelling_or_access(
    make_client: ClientFactory, hub: FakeHub, commit: str
) -> None:
    for ask in _every_question(make_client(token=hub.token), "org/nothing", commit):
        with pytest.raises(RepoNotFound, match="spelling"):
            ask()


def test_a_wrong_token_is_the_tokens_fault_not_the_repositorys(
    make_client: ClientFactory, hub: FakeHub, commit: str
) -> None:
    for ask in _every_question(make_client(token="hf_wrong"), REPO, commit):
        with pytest.raises(Unauthorized, match="does not accept the token") as caught:
            ask()
        assert "hf_wrong" not in caught.value.details


def test_a_gated_repository_says_where_to_accept_its_licence(
    client: HubClient, hub: FakeHub
) -> None:
    repo = hub.add_repo("org/gated", FILES, gated="manual")
    assert len(client.tree("org/gated", repo.main)) == len(FILES)
    for ask in (
        lambda: client.resolve("org/gated", repo.main, GGUF),
        lambda: client.manifest(ModelRef("org/gated")),
    ):
        with pytest.raises(GatedRepo) as caught:
            ask()
        assert f"{hub.endpoint}/org/gated" in caught.value.hint
        assert "HF_TOKEN" in caught.value.hint


def test_a_gated_repository_that_was_not_granted_says_so(
    make_client: ClientFactory, hub: FakeHub
) -> None:
    repo = hub.add_repo("org/gated", FILES, gated="manual")
    client = make_client(token=hub.token)
    with pytest.raises(GatedRepo, match="not been granted"):
        client.resolve("org/gated", repo.main, GGUF)
    repo.granted = True
    assert client.resolve("org/gated", repo.main, GGUF).size == len(FILES[GGUF])


def test_a_disabled_repository_is_said_to_be_disabled(client: HubClient, hub: FakeHub) -> None:
    repo = hub.add_repo("org/disabled", FILES, disabled=True)
    for ask in _every_question(client, "org/disabled", repo.main):
        with pytest.raises(DisabledRepo):
            ask()


def test_a_missing_file_is_named(client: HubClient, commit: str) -> None:
    with pytest.raises(EntryNotFound, match=r"no file 'nothing\.gguf'"):
        client.resolve(REPO, commit, "nothing.gguf")


def test_a_commit_that_is_gone_is_not_a_missing_repository(client: HubClient) -> None:
    with pytest.raises(EntryNotFound, match="no such revision"):
        client.tree(REPO, "f" * 40)
    with pytest.raises(EntryNotFound, match="no such revision"):
        client.resolve(REPO, "f" * 40, GGUF)


def test_another_403_shows_what_the_hub_says(client: HubClient, hub: FakeHub, commit: str) -> None:
    said = {"X-Error-Message": "Your token lacks the permission repo.content.read"}
    hub.fault("hub", "/tree/", kind="status", status=403, headers=said)
    with pytest.raises(Unauthorized, match="lacks the permission"):
        client.tree(REPO, commit)


@pytest.mark.parametrize("status", [400, 402, 410, 418, 451, 302, 204])
def test_an_answer_that_means_nothing_here_is_bad_metadata(
    client: HubClient, hub: FakeHub, commit: str, status: int
) -> None:
    hub.fault("hub", "/tree/", kind="status", status=status, body=b"<html>hm</html>")
    with pytest.raises(BadMetadata):
        client.tree(REPO, commit)
    assert len(hub.log) == 1


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"error":"plain words"}', "plain words"),
        (b'{"error":"two\\r\\nlines\\u001b[31m"}', "two lines"),
        (b'{"error":["x"]}', "no reason given"),
        (b"\xff\xfe", "�"),
        (b"x" * 100_000, "x" * 300),
    ],
)
def test_what_the_hub_says_becomes_one_short_line(
    client: HubClient, hub: FakeHub, commit: str, body: bytes, shown: str
) -> None:
    hub.fault("hub", "/tree/", kind="status", status=400, body=body)
    with pytest.raises(BadMetadata) as caught:
        client.tree(REPO, commit)
    assert shown in caught.value.message
    assert len(caught.value.message) < 400
    assert caught.value.message.isprintable()


def test_every_refusal_is_an_error_of_transfers() -> None:
    for kind in (DisabledRepo, EntryNotFound, GatedRepo, RepoNotFound, Unauthorized, BadMetadata):
        assert issubclass(kind, TransferError)
        assert issubclass(kind, LlamactlError)
        assert not kind.transient
