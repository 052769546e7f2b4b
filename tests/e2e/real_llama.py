"""A llamactl over real llama.cpp with a tiny model, as the tests of clients want it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import requests

from tests.e2e.processes import PATIENCE, LlamactlProcess
from tests.fakes.gguf_files import tiny_gguf
from tests.requirements import require, require_module

KINDS = ("embedded", "llama-server")

#: A chat template with tools, whose calls begin with a character that is one token. A model of
#: random weights that is pushed to that token begins a call, and the grammar of the call does the
#: rest.
CALL_BEGINS = "@"
#: The tiny model's token that ends an answer.
END_TOKEN = 2
TEMPLATE = """\
{%- if tools %}<|system|>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
{% endif %}
{%- for message in messages %}<|{{ message.role }}|>
{%- if message.content %}
{{ message.content }}
{%- endif %}
{%- for call in message.tool_calls or [] %}
@{"name": {{ call.function.name | tojson }}, "parameters": {{ call.function.arguments | tojson }}}#
{%- endfor %}<|end|>
{% endfor %}
{%- if add_generation_prompt %}<|assistant|>
{% endif %}"""


@contextlib.contextmanager
def serving(kind: str, folder: Path) -> Iterator[LlamactlProcess]:
    """A server without instances over the llama.cpp of this kind; nothing of it is left."""
    settings: dict[str, object] = {}
    if kind == "embedded":
        require_module("xllamacpp")
    else:
        settings["backends.llama-cpp.command"] = require("llama-server")
    running = LlamactlProcess(folder / "server", settings)
    try:
        running.start()
        yield running
        assert running.stop() == 0
        assert running.processes() == set()
    finally:
        running.kill_everything()


def create(
    server: LlamactlProcess, name: str, *, aliases: Sequence[str] = (), **options: object
) -> None:
    """An instance of the tiny model with these of llama-server's flags."""
    (model,) = tiny_gguf(server.folder / "tiny.gguf")
    body = {
        "backend_type": "llama_cpp",
        "backend_options": {"model": str(model), "ctx_size": 16384, **options},
        "aliases": list(aliases),
    }
    answer = server.api("POST", f"/instances/{name}", json=body)
    assert answer.status_code == 201, answer.text


@contextlib.contextmanager
def openai_client(server: LlamactlProcess, key: str | None = None) -> Iterator[openai.OpenAI]:
    """The official client, with nothing but a base URL and a key."""
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=key or server.key, timeout=PATIENCE, max_retries=0
    ) as made:
        yield made


def post(server: LlamactlProcess, path: str, **how: Any) -> requests.Response:
    """A POST with the server's key."""
    return requests.post(f"{server.url}{path}", headers=server.headers, timeout=PATIENCE, **how)


def busy_slots(server: LlamactlProcess, name: str) -> int:
    """How many slots of an instance are generating, by its own word."""
    slots = server.api("GET", f"/instances/{name}/proxy/slots").json()
    return sum(bool(slot["is_processing"]) for slot in slots)
