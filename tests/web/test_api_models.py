"""Cached models by REST, as docs/api.md tells it, over a real cache and hub."""

from __future__ import annotations

import re
from pathlib import Path

from flask.testing import FlaskClient

from llamactl.config import Config
from tests.fakes.fake_hub import FakeHub, seeded_bytes
from tests.web.conftest import Q4, Q8, REPO, Models


def test_the_list_of_models_has_every_field_of_the_contract(
    models: Models, repo: str, web_config: Config
) -> None:
    models.fetch(f"{repo}:Q4_K_M")
    [model] = models.list()
    assert set(model) == {
        "repo", "tag", "files", "total_size", "size_bytes", "file_count", "complete", "node",
    }  # fmt: skip
    assert (model["repo"], model["tag"], model["complete"]) == (REPO, "Q4_K_M", True)
    assert model["total_size"] == model["size_bytes"] == sum(f["size"] for f in model["files"])
    assert model["file_count"] == len(model["files"])
    files = {file["name"]: file for file in model["files"]}
    gguf = files[Q4]
    assert set(gguf) == {"name", "path", "size", "size_bytes", "modified", "type", "sha256"}
    assert gguf["path"] == str(web_config.llama_cpp.cache_dir / f"{REPO.replace('/', '_')}_{Q4}")
    assert gguf["size"] == gguf["size_bytes"] == 200_000
    assert isinstance(gguf["modified"], int)
    assert gguf["type"] == "gguf"
    assert re.fullmatch(r"[0-9a-f]{64}", gguf["sha256"])
    assert {file["type"] for file in model["files"]} <= {"gguf", "mmproj", "preset"}


def test_an_empty_cache_is_an_empty_list(models: Models) -> None:
    assert models.list() == []


def test_delete_takes_one_tag_and_leaves_the_others(models: Models, repo: str) -> None:
    models.fetch(f"{repo}:Q4_K_M")
    kept = models.fetch(f"{repo}:Q8_0")
    assert models.delete(repo, "q4_k_m").status_code == 204
    assert [model["tag"] for model in models.list()] == ["Q8_0"]
    assert Path(kept["model_path"]).exists()


def test_delete_without_a_tag_takes_every_tag(
    models: Models, repo: str, web_config: Config
) -> None:
    models.fetch(f"{repo}:Q4_K_M")
    models.fetch(f"{repo}:Q8_0")
    assert models.delete(repo).status_code == 204
    assert models.list() == []
    answer = models.delete(repo)
    assert (answer.status_code, answer.get_json()["error"]) == (404, "model_not_found")
    assert not [path for path in web_config.llama_cpp.cache_dir.iterdir() if "Llama" in path.name]


def test_a_model_that_is_downloading_is_in_use(models: Models, slow: str) -> None:
    job_id = models.download(slow).get_json()["job_id"]
    models.wait(job_id, "downloading")
    repo, _, tag = slow.partition(":")
    for answer in (models.delete(repo, tag), models.delete(repo)):
        assert (answer.status_code, answer.get_json()["error"]) == (409, "model_in_use")
    assert models.job(job_id)["status"] == "downloading"


def test_a_delete_that_is_not_clear_deletes_nothing(
    models: Models, client: FlaskClient, repo: str
) -> None:
    models.fetch(f"{repo}:Q4_K_M")
    for query in (
        "", "repo=", "repo=name", "repo=../../x", "repo=a/b&repo=c/d", "repo=a/b&tga=Q4_K_M",
        f"repo={repo}&tag=", "repo=a/b%0A", f"repo={repo}:Q4_K_M",
    ):  # fmt: skip
        answer = client.delete(f"{models.base}?{query}")
        assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_request"), query
    assert len(models.list()) == 1


def test_a_search_shows_what_the_hub_found(
    models: Models, client: FlaskClient, repo: str, hub: FakeHub
) -> None:
    hub.add_repo("org/gated-llama-GGUF", {"m-Q4_K_M.gguf": b"GGUF" * 9}, gated="auto", likes=7)
    found = client.get(f"{models.base}/search?q=llama").get_json()
    assert {hit["repo"] for hit in found} == {REPO, "org/gated-llama-GGUF"}
    for hit in found:
        assert set(hit) == {"repo", "downloads", "likes", "updated", "gated"}
        assert hit["gated"] is (hit["repo"] != REPO)
        assert hit["updated"] is None or isinstance(hit["updated"], int)


def test_a_search_without_words_is_refused(models: Models, client: FlaskClient) -> None:
    for query in ("", "?q=a&q=b", f"?q={'x' * 300}"):
        assert client.get(f"{models.base}/search{query}").status_code == 400


def test_a_hub_that_fails_is_a_502_that_says_so(
    models: Models, client: FlaskClient, hub: FakeHub
) -> None:
    hub.fault("hub", "search", kind="status", status=400, times=None)
    answer = client.get(f"{models.base}/search?q=llama")
    assert answer.status_code == 502
    assert set(answer.get_json()) == {"error", "details"}


def test_verify_is_a_job_that_names_what_is_damaged_and_repair_mends_it(
    models: Models, client: FlaskClient, repo: str
) -> None:
    path = Path(models.fetch(f"{repo}:Q4_K_M")["model_path"])
    query = {"repo": repo, "tag": "q4_k_m"}
    answer = client.post(f"{models.base}/verify", query_string=query)
    assert (answer.status_code, set(answer.get_json())) == (202, {"job_id"})
    job = models.wait(answer.get_json()["job_id"], "completed", "failed")
    assert (job["kind"], job["status"]) == ("verify", "completed")

    with path.open("r+b") as file:
        file.seek(100_000)
        file.write(b"damaged")
    answer = client.post(f"{models.base}/verify", query_string=query)
    job = models.wait(answer.get_json()["job_id"], "completed", "failed")
    assert (job["status"], job["error_code"]) == ("failed", "checksum_mismatch")
    assert Q4 in job["error"]
    damaged = [file["name"] for file in job["progress"]["files"] if file["status"] == "damaged"]
    assert damaged == [Q4]

    answer = client.post(f"{models.base}/verify", query_string={**query, "repair": "true"})
    job = models.wait(answer.get_json()["job_id"], "completed", "failed")
    assert job["status"] == "completed", job
    assert path.read_bytes() == seeded_bytes(200_000, 1)


def test_verify_of_what_is_not_there_is_refused(models: Models, client: FlaskClient) -> None:
    for query, status in (
        ("repo=org/name", 404), ("", 400), ("repo=x", 400), ("repo=a/b:Q4", 400),
        ("repo=a/b&repair=maybe", 400),
    ):  # fmt: skip
        assert client.post(f"{models.base}/verify?{query}").status_code == status


def test_an_update_is_told_once_the_hub_has_other_bytes(
    models: Models, client: FlaskClient, repo: str, hub: FakeHub
) -> None:
    models.fetch(f"{repo}:Q4_K_M")
    old = hub.routes.repos[repo].main
    assert client.get(f"{models.base}/updates").get_json() == []
    new = hub.push(repo, {Q4: seeded_bytes(210_000, 9)})
    told = [{
        "repo": REPO, "tag": "Q4_K_M", "cached_commit": old, "hub_commit": new, "changed": [Q4],
    }]  # fmt: skip
    assert client.get(f"{models.base}/updates").get_json() == told
    assert client.get(f"{models.base}/updates?repo={repo}").get_json() == told
    assert client.get(f"{models.base}/updates?repo=other/repo").get_json() == []
    models.fetch(f"{repo}:Q4_K_M")
    assert client.get(f"{models.base}/updates").get_json() == []


def test_the_variants_of_a_repository_are_told_with_their_sizes_and_what_is_cached(
    models: Models, client: FlaskClient, repo: str
) -> None:
    models.fetch(f"{repo}:Q4_K_M")
    answer = client.get(f"{models.base}/variants?repo={repo}")
    assert answer.status_code == 200
    told = answer.get_json()
    assert (told["repo"], told["ctx_size"]) == (repo, 8192)
    assert told["machine"]["ram"]["total"] >= told["machine"]["ram"]["free"] > 0
    by_tag = {variant["tag"]: variant for variant in told["variants"]}
    assert {tag: variant["cached"] for tag, variant in by_tag.items()} == {
        "Q4_K_M": True,
        "Q8_0": False,
    }
    assert by_tag["Q8_0"]["files"] == [{"name": Q8, "size": 300_000}]
    assert (by_tag["Q8_0"]["size"], by_tag["Q8_0"]["mmproj"]) == (300_000, None)


def test_variants_want_a_repository_and_a_sensible_context(
    models: Models, client: FlaskClient, repo: str
) -> None:
    for query in ("", "repo=", f"repo={repo}:Q4_K_M", f"repo={repo}&ctx_size=-1",
                  f"repo={repo}&ctx_size=many", f"repo={repo}&ctx_size={2**40}"):  # fmt: skip
        answer = client.get(f"{models.base}/variants?{query}")
        assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_request"), query
    missing = client.get(f"{models.base}/variants?repo=org/none")
    assert (missing.status_code, missing.get_json()["error"]) == (404, "not_found")
