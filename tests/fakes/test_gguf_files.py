"""The tiny models run on real llama.cpp, whole and in shards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.gguf_files import fake_mmproj, tiny_gguf, tiny_gguf_bytes

# In a process of its own: llama.cpp's threads and log are not this one's.
SCRIPT = """
import json, sys, requests, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.port = 0
parameters.n_ctx = 512
parameters.warmup = False
parameters.embedding = True
server = xllamacpp.Server(parameters)
url = server.listening_address + "/v1/"
chat = {"messages": [{"role": "user", "content": "Hello you"}], "max_tokens": 16}
text = {"prompt": "ba be", "max_tokens": 16}
stream = requests.post(url + "chat/completions", json=chat | {"stream": True}).text
pieces = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
print(json.dumps({
    "chat": requests.post(url + "chat/completions", json=chat).json()["choices"][0],
    "stream": [choice["delta"] for piece in pieces for choice in piece["choices"]],
    "done": stream.rstrip().endswith("data: [DONE]"),
    "text": requests.post(url + "completions", json=text).json()["choices"][0],
    "vector": requests.post(url + "embeddings", json={"input": "Grüße"}).json()["data"][0],
}))
"""


@pytest.mark.parametrize("shards", [1, 3])
def test_a_tiny_model_chats_streams_completes_and_embeds(tmp_path: Path, shards: int) -> None:
    pytest.importorskip("xllamacpp")
    files = tiny_gguf(tmp_path / "tiny.gguf", shards=shards)
    assert len(files) == shards
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(files[0])], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    answers = json.loads(done.stdout)
    assert answers["chat"]["message"]["content"].strip()
    assert answers["chat"]["finish_reason"] == "length"
    assert "".join(delta.get("content") or "" for delta in answers["stream"]).strip()
    assert len(answers["stream"]) > 8
    assert answers["done"]
    assert answers["text"]["text"].strip()
    assert len(answers["vector"]["embedding"]) == 64


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    assert tiny_gguf_bytes(seed=1) == tiny_gguf_bytes(seed=1) != tiny_gguf_bytes(seed=2)


def test_shards_are_named_as_llama_cpp_names_them(tmp_path: Path) -> None:
    files = tiny_gguf(tmp_path / "m-Q8_0.gguf", shards=2)
    assert [path.name for path in files] == [
        "m-Q8_0-00001-of-00002.gguf",
        "m-Q8_0-00002-of-00002.gguf",
    ]


def test_a_number_of_shards_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shards"):
        tiny_gguf(tmp_path / "m.gguf", shards=20)


def test_a_fake_projector_has_the_magic_of_a_gguf() -> None:
    assert fake_mmproj(100).startswith(b"GGUF")
    assert len(fake_mmproj(100)) == 100
