"""Nonsense sent to every management route is answered, in JSON, and never by a 500."""

from __future__ import annotations

import json
import random
from urllib.parse import quote

from flask import Flask
from flask.testing import FlaskClient

from llamactl.runtime import Runtime
from tests.web.test_api_routes import VARIABLE

SEED = 20261122
ROUNDS = 12
PIECES: list[object] = [
    None, True, False, 0, -1, 1.5, 2**70, 10**30, -0.0, "", " ", "x", "org/name", "org/name:Q4_K_M",
    "../../etc/passwd", "a\nb", "\u202e", "\ufeff", "😀" * 50, "%00", "-x", "--help", "$(id)", "*",
    "x" * 5000, [], {}, [[]], {"": ""}, ["a", 1, None], {"model": "/dev/null"}, {"model": ["x"]},
    {"extra_args": {"--tools": "all"}}, "/dev/zero", "~nobody/x", "~", "org/name" * 100,
]  # fmt: skip
WORDS = [
    "repo", "tag", "wait", "lines", "follow", "q", "backend_options", "backend_type", "aliases",
    "environment", "command", "name", "permission_mode", "instance_ids", "expires_at", "group",
    "bandwidth_limit", "max_concurrent", "idle_timeout", "preset_ini", "nodes", "unknown",
]  # fmt: skip
TYPES = ["application/json"] * 8 + ["text/plain", "application/json; charset=latin-1", "x", ""]


def nonsense_body(dice: random.Random) -> bytes:
    """Mostly JSON objects of known fields with foreign values, sometimes cut or mangled."""
    fields = {word: dice.choice(PIECES) for word in dice.sample(WORDS, dice.randint(0, 6))}
    raw = bytearray(json.dumps(fields).encode())
    if dice.random() < 0.2 and raw:
        del raw[dice.randrange(len(raw)) :]
    if dice.random() < 0.2 and raw:
        raw[dice.randrange(len(raw))] = dice.randrange(256)
    return bytes(raw)


def nonsense_text(dice: random.Random) -> str:
    return quote(str(dice.choice(PIECES))[:200], safe="")


def test_nonsense_is_never_a_500_and_gets_an_answer_that_is_described(
    app: Flask, client: FlaskClient, runtime: Runtime
) -> None:
    dice = random.Random(SEED)
    described = client.get("/openapi.json").get_json()["paths"]
    seen = set()
    for _ in range(ROUNDS):
        for rule in app.url_map.iter_rules():
            # What a running instance answers is its own, and passed on as it is.
            if not rule.rule.startswith("/api") or "/proxy/" in rule.rule:
                continue
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                path = VARIABLE.sub(lambda _: nonsense_text(dice) or "x", rule.rule)
                words = dice.sample(WORDS, dice.randint(0, 2))
                query = "&".join(f"{word}={nonsense_text(dice)}" for word in words)
                answer = client.open(
                    f"{path}?{query}",
                    method=method,
                    data=nonsense_body(dice),
                    content_type=dice.choice(TYPES),
                    buffered=False,
                )
                where = (method, path, query, answer.status_code)
                assert answer.status_code != 500, where
                if answer.status_code >= 400:
                    assert answer.mimetype == "application/json", where
                    assert set(answer.get_json()) == {"error", "details"}, where
                address = VARIABLE.sub(lambda found: f"{{{found[1]}}}", rule.rule)
                known = described[address][method.lower()]["responses"]
                assert str(answer.status_code) in known, where
                seen.add(answer.status_code)
                answer.close()
    assert {200, 400, 404, 415} <= seen
    assert runtime.database.read("PRAGMA integrity_check")[0][0] == "ok"
