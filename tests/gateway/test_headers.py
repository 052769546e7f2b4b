"""Which headers pass, in each direction."""

from __future__ import annotations

from llamactl.gateway.headers import to_client, to_instance


def names(headers: list[tuple[str, str]]) -> set[str]:
    return {name.lower() for name, _ in headers}


def test_what_proves_the_client_never_reaches_the_instance() -> None:
    sent = [
        ("Authorization", "Bearer mine"),
        ("X-API-Key", "mine"),
        ("Cookie", "session=mine"),
        ("Proxy-Authorization", "Basic mine"),
        ("anthropic-version", "2023-06-01"),
        ("Content-Type", "application/json"),
    ]
    passed = to_instance(sent, "127.0.0.1:8000", "its-own", 12)
    assert "mine" not in repr(passed)
    assert ("Authorization", "Bearer its-own") in passed
    assert ("anthropic-version", "2023-06-01") in passed
    assert ("Content-Type", "application/json") in passed
    assert ("Content-Length", "12") in passed
    assert len([name for name, _ in passed if name.lower() == "authorization"]) == 1


def test_hop_by_hop_headers_end_here_with_those_that_connection_names() -> None:
    sent = [
        ("Connection", "close, X-Secret"),
        ("connection", "x-other"),
        ("X-Secret", "1"),
        ("X-Other", "1"),
        ("TE", "trailers"),
        ("Trailer", "x"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "x"),
        ("Keep-Alive", "x"),
        ("Transfer-Encoding", "chunked"),
        ("Expect", "100-continue"),
        ("X-Kept", "1"),
    ]
    ours = {"host", "authorization", "content-length", "accept-encoding", "connection"}
    assert names(to_instance(sent, "h", "k", 0)) == {*ours, "x-kept"}
    assert names(to_client(sent, None)) == {"expect", "x-kept"}


def test_a_generation_cannot_be_told_to_outlive_its_client() -> None:
    assert "x-conversation-id" not in names(to_instance([("X-Conversation-Id", "1")], "h", "k", 0))


def test_who_the_client_is_stays_here() -> None:
    sent = [
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Real-IP", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
        ("Origin", "https://page"),
        ("Referer", "https://page/x"),
        ("Sec-Fetch-Site", "same-origin"),
        ("X-Llama-Server-Proxy-Header-Authorization", "x"),
    ]
    assert "10.0.0.1" not in repr(to_instance(sent, "h", "k", 0))
    assert "page" not in repr(to_instance(sent, "h", "k", 0))
    assert "x-llama-server-proxy-header-authorization" not in names(to_instance(sent, "h", "k", 0))


def test_an_instance_sets_nothing_for_our_origin() -> None:
    came = [
        ("Access-Control-Allow-Origin", "*"),
        ("Set-Cookie", "a=b"),
        ("Strict-Transport-Security", "max-age=1"),
        ("Content-Security-Policy", "default-src *"),
        ("Cross-Origin-Opener-Policy", "unsafe-none"),
        ("Location", "http://evil/"),
        ("Server", "llama.cpp"),
        ("X-Accel-Redirect", "/secret"),
        ("X-Sendfile", "/etc/passwd"),
        ("X-Llamactl-Error", "model_not_found"),
        ("Content-Type", "application/json"),
        ("X-Bad", "a\r\n b"),
    ]
    assert to_client(came, 7) == [("Content-Type", "application/json"), ("Content-Length", "7")]


def test_an_event_stream_is_held_back_by_nobody() -> None:
    came = [
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("Cache-Control", "public"),
        ("X-Accel-Buffering", "yes"),
    ]
    assert to_client(came, None) == [
        came[0],
        ("Cache-Control", "no-cache, no-transform"),
        ("X-Accel-Buffering", "no"),
    ]
