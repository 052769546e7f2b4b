"""Secrets are shown where they are made, and nowhere else: no answer and no file holds one."""

from __future__ import annotations

from flask import Flask
from flask.testing import FlaskClient

from llamactl.config import Config
from llamactl.runtime import Runtime
from tests.web import test_every_key_at_every_route as table
from tests.web.visitor import Visitor

settings = table.settings


def test_no_answer_to_a_question_holds_a_secret(
    app: Flask,
    client: FlaskClient,
    anonymous: FlaskClient,
    management_key: str,
    inference_key: str,
) -> None:
    Visitor(anonymous).log_in(management_key)
    secrets = (management_key, inference_key, table.METRICS_KEY)
    questions = [ask for ask in table.asks(app) if ask.method == "GET"]
    assert len(questions) > 40
    for ask in questions:
        for asking in (client, anonymous):
            with asking.get(ask.path) as answer:
                text = answer.get_data(as_text=True)
            assert not [secret for secret in secrets if secret in text], ask.path


def test_a_stolen_database_opens_nothing(
    runtime: Runtime,
    web_config: Config,
    anonymous: FlaskClient,
    management_key: str,
    inference_key: str,
) -> None:
    Visitor(anonymous).log_in(management_key)
    cookies = [
        part.partition("=")[2]
        for header in (anonymous.get("/models").request.headers.get("Cookie") or "",)
        for part in header.split("; ")
    ]
    assert cookies
    runtime.keys.flush()
    kept = b"".join(path.read_bytes() for path in web_config.data_dir.glob("llamactl.db*"))
    assert b"tests" in kept, "the key's name is there"
    # The digest of a key is no key: what is presented is hashed.
    public, secret = inference_key.rsplit("_", 1)[0], inference_key.split("_", 2)[2]
    for presented in (management_key, inference_key, secret, *cookies):
        assert presented.encode() not in kept
    assert public.split("_")[1].encode() in kept
