"""What reaches an instance and what comes back, by key, path, body and header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Instance, Serve, Served, chat

PLAIN = chat(stream=False, fake={"tokens": 2})


@pytest.fixture(scope="module")
def three(serve: Serve, instance: Instance) -> Served:
    """Three instances; all of them are the one fake."""
    more = (
        {"id": 2, "name": "other", "port": instance.port},
        {"id": 3, "name": "third", "port": instance.port, "status": "stopped"},
    )
    return serve(more)


def error_of(body: bytes) -> Any:
    """The error in OpenAI's form; every one of its fields is there."""
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "code", "param"}
    return error


def last_request(instance: Instance) -> Any:
    return instance.fake.events("request")[-1]


def test_a_body_reaches_the_instance_unchanged(three: Served, instance: Instance) -> None:
    raw = b'{ "seed":123456789012345678901234567890, "model" :"fake","z":1,"a":"\\u00e9\xc3\xa9"}'
    status, _, _ = three.call("POST", "/v1/completions", raw, Content_Type="application/json")
    assert status == 200
    assert last_request(instance)["body"] == raw.decode()


def test_a_router_gets_its_own_name_for_the_model(three: Served, instance: Instance) -> None:
    raw = b'{"n":1.50,"model":"fake/org/name:tag","seed":18446744073709551616}'
    three.call("POST", "/v1/completions", raw, Content_Type="application/json")
    changed = raw.replace(b'"fake/org/name:tag"', b'"org/name:tag"')
    assert last_request(instance)["body"] == changed.decode()


def test_an_alias_with_a_slash_is_not_taken_for_an_instance(
    three: Served, instance: Instance
) -> None:
    status, _, _ = three.call("POST", "/v1/completions", {"model": "org/n:tag", "prompt": "x"})
    assert status == 200
    assert json.loads(last_request(instance)["body"])["model"] == "org/n:tag"


def test_the_clients_key_stays_here_and_the_instances_own_is_sent(
    three: Served, instance: Instance, instance_key: str
) -> None:
    three.call("POST", "/v1/completions", {"model": "fake"}, X_Api_Key="mine", Cookie="a=mine")
    request = last_request(instance)
    sent = {name.lower(): value for name, value in request["headers"]}
    assert sent["authorization"] == f"Bearer {instance_key}"
    assert three.key not in repr(request)
    assert "mine" not in repr(request)
    assert "x-api-key" not in sent


def test_a_form_passes_byte_by_byte(three: Served, instance: Instance) -> None:
    raw = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        b"RIFF\r\n--not-b\r\n"
        b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nfake/whisper\r\n--b--\r\n'
    )
    kind = "multipart/form-data; boundary=b"
    status, _, body = three.call("POST", "/v1/audio/transcriptions", raw, Content_Type=kind)
    assert (status, json.loads(body)) == (200, {"text": "hello"})
    request = last_request(instance)
    assert request["body"] == raw.replace(b"fake/whisper", b"whisper").decode()
    assert dict(request["headers"])["Content-Type"] == kind


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": []}),
        ("completions", {"prompt": "x"}),
        ("embeddings", {"input": "x"}),
        ("rerank", {"query": "x", "documents": ["a", "b"]}),
        ("responses", {"input": "x"}),
        ("messages", {"messages": [], "max_tokens": 1}),
    ],
)
def test_each_kind_of_inference_passes(three: Served, path: str, body: dict[str, Any]) -> None:
    status, headers, answer = three.call("POST", f"/v1/{path}", {"model": "fake", **body})
    assert status == 200
    assert headers["content-type"].startswith("application/json")
    assert json.loads(answer)
    assert "access-control-allow-origin" not in headers


def test_an_error_of_the_model_passes_as_it_is(three: Served) -> None:
    status, _, body = three.call(
        "POST", "/v1/completions", {"model": "fake", "fake": {"status": 400}}
    )
    assert status == 400
    assert json.loads(body)["error"]["message"] == "as asked"


def test_an_instance_that_refuses_our_key_is_our_fault_and_not_the_clients(
    serve: Serve, tmp_path: Path
) -> None:
    stranger = Instance(tmp_path, "another key")
    try:
        served = serve(({"id": 9, "name": "stranger", "port": stranger.port},))
        status, _, body = served.call("POST", "/v1/completions", {"model": "stranger"})
        assert status == 502
        assert error_of(body)["code"] == "upstream_gone"
    finally:
        stranger.kill()


def test_the_official_header_of_anthropic_carries_a_key_too(three: Served) -> None:
    _, key = three.make_key()
    assert three.call("GET", "/v1/models", key="", X_Api_Key=key)[0] == 200
    status, _, body = three.call("GET", "/v1/models", key="wrong", X_Api_Key=key)
    assert (status, error_of(body)["code"]) == (401, "invalid_key")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/fake", "/llama-cpp/fake/health"])
def test_without_a_key_nothing_is_told(three: Served, path: str) -> None:
    status, headers, body = three.call("GET", path, key="")
    assert status == 401
    assert error_of(body)["code"] == "missing_key"
    assert headers["www-authenticate"].startswith("Bearer")


def test_a_key_sees_and_uses_only_its_instances(three: Served) -> None:
    _, key = three.make_key(permission_mode="per_instance", instance_ids=[2])
    listed = json.loads(three.call("GET", "/v1/models", key=key)[2])
    assert [entry["id"] for entry in listed["data"]] == ["other"]
    assert three.call("POST", "/v1/completions", {"model": "other"}, key=key)[0] == 200
    assert three.call("GET", "/v1/models/other", key=key)[0] == 200
    for path, body in (
        ("/v1/completions", {"model": "{}"}),
        ("/v1/completions", {"model": "{}/x"}),
        ("/llama-cpp/{}/completion", {"prompt": "x"}),
    ):
        answers = []
        for name in ("fake", "unknown", "org"):
            sent = {field: value.format(name) for field, value in body.items()}
            status, _, raw = three.call("POST", path.format(name), sent, key=key)
            answers.append((status, error_of(raw)["code"], raw.replace(name.encode(), b"")))
        assert answers[0][:2] == (404, "model_not_found")
        assert answers[0] == answers[1] == answers[2]


def test_a_key_without_instances_sees_an_empty_list(three: Served) -> None:
    _, key = three.make_key(permission_mode="per_instance", instance_ids=[77])
    answer = json.loads(three.call("GET", "/v1/models", key=key)[2])
    assert answer == {"object": "list", "data": []}


def test_the_list_names_instances_and_their_aliases(three: Served) -> None:
    listed = json.loads(three.call("GET", "/v1/models")[2])["data"]
    assert [entry["id"] for entry in listed] == ["fake", "org/n:tag", "other", "third"]
    assert all(entry["object"] == "model" for entry in listed)
    found = json.loads(three.call("GET", "/v1/models/org/n:tag")[2])
    assert found == listed[1]
    assert three.call("GET", "/v1/models/none")[0] == 404


def test_the_list_tells_what_a_running_router_has_inside(
    serve: Serve, tmp_path: Path, instance_key: str
) -> None:
    router = Instance(tmp_path, instance_key, models="org/a:Q4_K_M,b")
    try:
        served = serve(
            (
                {"id": 2, "name": "router", "port": router.port, "is_router": True},
                {"id": 3, "name": "gone", "port": 1, "is_router": True},
                {"id": 4, "name": "asleep", "port": 1, "is_router": True, "status": "stopped"},
            )
        )
        listed = json.loads(served.call("GET", "/v1/models")[2])["data"]
        names = ["fake", "org/n:tag", "router", "router/org/a:Q4_K_M", "router/b", "gone", "asleep"]
        assert [entry["id"] for entry in listed] == names
        assert listed[3]["owned_by"] == "router"
        assert router.fake.events("request")[0]["path"] == "/v1/models"
        assert served.settled()["taken"] == 0
    finally:
        router.kill()


@pytest.mark.parametrize(
    ("raw", "kind", "status", "param"),
    [
        (b"", "application/json", 400, None),
        (b"{", "application/json", 400, None),
        (b"[]", "application/json", 400, None),
        (b'{"a": ' + b"[" * 50_000, "application/json", 400, None),
        (b"{}", "application/json", 400, "model"),
        (b'{"model": 5}', "application/json", 400, "model"),
        (b'{"model": "none"}', "application/json", 404, None),
        (b'{"model": "fake"}', "text/plain", 415, None),
        (b"model=fake", "application/x-www-form-urlencoded", 415, None),
        (b"x", "multipart/form-data", 400, None),
    ],
)
def test_a_wrong_body_is_an_error_in_openai_form(
    three: Served, raw: bytes, kind: str, status: int, param: str | None
) -> None:
    got, _, body = three.call("POST", "/v1/chat/completions", raw, Content_Type=kind)
    assert got == status
    assert error_of(body)["param"] == param


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/nothing", 404),
        ("POST", "/v1/chat/completions/control", 404),
        ("POST", "/v1/../api/v1/keys", 404),
        ("GET", "/llama-cpp/fake/slots", 404),
        ("POST", "/llama-cpp/fake/slots/0", 404),
        ("POST", "/llama-cpp/fake/props", 404),
        ("POST", "/llama-cpp/fake/lora-adapters", 404),
        ("POST", "/llama-cpp/fake/models/load", 404),
        ("GET", "/llama-cpp/fake/metrics", 404),
        ("GET", "/llama-cpp/fake/tools", 404),
        ("POST", "/llama-cpp/fake/tools", 404),
        ("GET", "/llama-cpp/fake/cors-proxy", 404),
        ("GET", "/llama-cpp/fake/v1/stream/1", 404),
        ("POST", "/llama-cpp/fake/../fake/slots", 404),
        ("POST", "/llama-cpp/fake/%2e%2e/slots", 404),
        ("POST", "/llama-cpp/fake/completion%00", 404),
        ("POST", "/llama-cpp/fake//slots", 404),
        ("GET", "/llama-cpp/fake%0a/health", 404),
        ("DELETE", "/llama-cpp/fake/completion", 405),
    ],
)
def test_what_is_not_inference_is_not_there(
    three: Served, instance: Instance, method: str, path: str, status: int
) -> None:
    before = len(instance.fake.events("request"))
    got, _, body = three.call(method, path, {"model": "fake"} if method != "GET" else None)
    assert got == status
    assert error_of(body)["code"] in {"not_found", "method_not_allowed", "model_not_found"}
    assert len(instance.fake.events("request")) == before


def test_an_instance_is_reached_by_its_name_in_llama_servers_words(three: Served) -> None:
    _, key = three.make_key()
    status, _, body = three.call("POST", "/llama-cpp/fake/tokenize", {"content": "ab"}, key=key)
    assert (status, json.loads(body)) == (200, {"tokens": [97, 98]})
    assert three.call("POST", "/llama-cpp/fake/v1/completions", {"prompt": "x"}, key=key)[0] == 200
    status, _, body = three.call("GET", "/llama-cpp/fake/health", key=key)
    assert (status, json.loads(body)) == (200, {"status": "ok"})


def test_an_instances_properties_say_nothing_of_the_machine(three: Served) -> None:
    status, _, body = three.call("GET", "/llama-cpp/fake/props")
    assert status == 200
    assert json.loads(body) == {"total_slots": 1, "build_info": "b0-fake"}
    three.settled()


def test_looking_at_an_instance_starts_nothing(three: Served) -> None:
    for path in ("health", "props", "v1/models"):
        status, _, body = three.call("GET", f"/llama-cpp/third/{path}")
        assert (status, error_of(body)["code"]) == (503, "instance_not_running")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/x", "https://x/", "file:///etc/passwd", "HTTP://x"]
)
def test_an_address_to_fetch_is_refused(three: Served, instance: Instance, url: str) -> None:
    before = len(instance.fake.events("request"))
    part = {"type": "image_url", "image_url": {"url": url}}
    body = {"model": "fake", "messages": [{"role": "user", "content": [part]}]}
    for path in ("/v1/chat/completions", "/llama-cpp/fake/chat/completions"):
        status, _, answer = three.call("POST", path, body)
        assert status == 400
        assert "allow_remote_media" in error_of(answer)["message"]
    assert len(instance.fake.events("request")) == before
    part["image_url"] = {"url": "data:image/png;base64,AAAA"}
    assert three.call("POST", "/v1/chat/completions", {**body, **PLAIN})[0] == 200


def test_an_address_to_fetch_may_be_allowed(serve: Serve) -> None:
    served = serve(gateway__allow_remote_media=True)
    content = [{"type": "image_url", "image_url": {"url": "http://x/"}}]
    body = {**PLAIN, "messages": [{"role": "user", "content": content}]}
    assert served.call("POST", "/v1/chat/completions", body)[0] == 200


def test_a_management_key_reaches_everything_of_a_running_instance(
    three: Served, instance: Instance
) -> None:
    status, headers, body = three.call("GET", "/api/v1/instances/fake/proxy/slots?a=1&b=%2F")
    assert (status, json.loads(body)[0]["id"]) == (200, 0)
    assert last_request(instance)["path"] == "/slots?a=1&b=%2F"
    assert headers["content-security-policy"] == "sandbox"
    assert "access-control-allow-origin" not in headers
    assert three.call("GET", "/api/v1/instances/fake/proxy/metrics")[2].startswith(b"llamacpp:")
    assert three.call("POST", "/api/v1/instances/fake/proxy/models/load", {})[0] == 200
    assert three.call("GET", "/api/v1/instances/fake/proxy/a/../slots")[0] == 404


def test_the_proxy_is_not_for_inference_keys_and_starts_nothing(three: Served) -> None:
    _, key = three.make_key()
    status, _, body = three.call("GET", "/api/v1/instances/fake/proxy/slots", key=key)
    assert (status, json.loads(body)["error"]) == (403, "permission_denied")
    status, _, body = three.call("GET", "/api/v1/instances/third/proxy/health")
    assert (status, json.loads(body)["error"]) == (503, "instance_not_running")
    status, _, body = three.call("GET", "/api/v1/instances/none/proxy/health")
    assert (status, json.loads(body)["error"]) == (404, "instance_not_found")


def test_a_routers_models_are_listed_loaded_and_unloaded(
    serve: Serve, tmp_path: Path, instance_key: str
) -> None:
    router = Instance(tmp_path, instance_key, models="org/a:Q4_K_M,b")
    try:
        served = serve(({"id": 2, "name": "router", "port": router.port, "is_router": True},))
        base = "/api/v1/llama-cpp/router/models"
        listed = json.loads(served.call("GET", base)[2])["data"]
        assert [entry["id"] for entry in listed] == ["org/a:Q4_K_M", "b"]
        for verb in ("load", "unload"):
            assert served.call("POST", f"{base}/org/a:Q4_K_M/{verb}")[0] == 200
            asked = last_request(router)
            assert asked["path"] == f"/models/{verb}"
            assert json.loads(asked["body"]) == {"model": "org/a:Q4_K_M"}
        _, key = served.make_key()
        assert served.call("GET", base, key=key)[0] == 403
        status, _, body = served.call("GET", "/api/v1/llama-cpp/fake/models")
        assert (status, json.loads(body)["error"]) == (400, "invalid_request")
    finally:
        router.kill()


def test_requests_and_tokens_are_counted_by_key(three: Served) -> None:
    key_id, key = three.make_key()
    three.call("POST", "/v1/chat/completions", PLAIN, key=key)
    three.call("POST", "/v1/chat/completions", {"model": "none"}, key=key)
    three.settled()
    usage = json.loads(three.call("GET", f"/test/keys/{key_id}")[2])
    assert usage == {"requests": 2, "tokens": 5}


def test_health_is_for_everyone_and_says_nothing_else(three: Served) -> None:
    status, headers, body = three.call("GET", "/healthz", key="")
    assert (status, body) == (200, b"ok\n")
    assert headers["content-type"].startswith("text/plain")


def test_metrics_are_for_management_and_count_what_was_done(serve: Serve) -> None:
    served = serve(auth__metrics_key="m" * 40)
    _, key = served.make_key()
    served.call("POST", "/v1/chat/completions", PLAIN, key=key)
    served.call("POST", "/v1/chat/completions", {"model": "none"}, key=key)
    served.settled()
    assert served.call("GET", "/metrics", key="")[0] == 401
    assert served.call("GET", "/metrics", key=key)[0] == 403
    assert served.call("GET", "/v1/models", key="m" * 40)[0] == 401
    for allowed in (served.key, "m" * 40):
        status, headers, body = served.call("GET", "/metrics", key=allowed)
        assert status == 200
        assert headers["content-type"].startswith("text/plain")
        lines = body.decode().splitlines()
        for line in (
            'llamactl_requests_total{instance="fake",result="200"} 1.0',
            'llamactl_requests_total{instance="",result="model_not_found"} 1.0',
            'llamactl_tokens_total{instance="fake",kind="generated"} 2.0',
            'llamactl_tokens_total{instance="fake",kind="prompt"} 3.0',
            'llamactl_request_seconds_count{instance="fake"} 1.0',
            'llamactl_first_byte_seconds_count{instance="fake"} 1.0',
            "llamactl_requests_in_flight 0.0",
            'llamactl_instances{state="running"} 1.0',
        ):
            assert line in lines


def test_without_required_keys_only_pages_of_other_sites_are_kept_out(serve: Serve) -> None:
    served = serve(
        auth__require_inference_auth=False, server__allowed_origins=["https://good.example"]
    )
    for key in ("", "anything"):
        assert served.call("POST", "/v1/completions", {"model": "fake"}, key=key)[0] == 200
    for headers, status in (
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Origin": "https://good.example", "Sec_Fetch_Site": "cross-site"}, 200),
    ):
        got, _, _ = served.call("POST", "/v1/completions", {"model": "fake"}, key="", **headers)
        assert got == status, headers
    assert served.call("GET", "/metrics", key="")[0] == 401
