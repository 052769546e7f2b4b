"""Tiny models that really run: a llama of half a megabyte with random weights.

It talks nonsense, in printable words, at thousands of tokens a second, and hardly ever ends by
itself: ask for `max_tokens`.
"""

from __future__ import annotations

import functools
import string
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gguf
    import numpy as np
    from numpy.typing import NDArray

EMBEDDING, FEED_FORWARD, LAYERS, HEADS = 64, 128, 2, 4
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6


def tiny_gguf(
    path: Path, *, seed: int = 0, shards: int = 1, name: str = "tiny", context_length: int = 8192
) -> list[Path]:
    """Write a small llama model that chats, completes and embeds; returns its file or files.

    Another seed makes other weights. With `shards` > 1 (up to 7) the files are named
    `STEM-00001-of-0000N.gguf` beside `path`, and carry the metadata that llama.cpp wants of a
    split model.
    """
    files = _built(seed, shards, name, context_length)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for number, payload in enumerate(files, 1):
        target = path
        if shards > 1:
            target = path.with_name(f"{path.stem}-{number:05d}-of-{shards:05d}.gguf")
        target.write_bytes(payload)
        written.append(target)
    return written


def tiny_gguf_bytes(*, seed: int = 0, name: str = "tiny") -> bytes:
    """The same model, in one piece, as bytes."""
    return _built(seed, 1, name, 8192)[0]


def fake_mmproj(size: int = 4096) -> bytes:
    """Bytes that pass for a projector wherever none is loaded: a GGUF's magic and nothing else."""
    return b"GGUF" + bytes(size - 4)


@functools.cache
def _built(seed: int, shards: int, name: str, context_length: int) -> tuple[bytes, ...]:
    import gguf

    tensors = _tensors(seed)
    per_shard = -(-len(tensors) // shards)
    if -(-len(tensors) // per_shard) != shards:
        raise ValueError(f"{len(tensors)} tensors can't be dealt to exactly {shards} shards")
    with tempfile.TemporaryDirectory() as folder:
        split = per_shard if shards > 1 else 0
        writer = gguf.GGUFWriter(Path(folder, "m.gguf"), "llama", split_max_tensors=split)
        writer.add_name(name)
        writer.add_context_length(context_length)
        writer.add_embedding_length(EMBEDDING)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(FEED_FORWARD)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(HEADS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_dimension_count(EMBEDDING // HEADS)
        writer.add_file_type(0)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        add_tokenizer(writer)
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(False)
        writer.add_chat_template(CHAT_TEMPLATE)
        for label, tensor in tensors.items():
            writer.add_tensor(label, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tuple(file.read_bytes() for file in sorted(Path(folder).iterdir()))


def add_tokenizer(writer: gguf.GGUFWriter) -> int:
    """Give a model the tokenizer of all tiny models; how many tokens it has."""
    tokens = _vocabulary()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return len(tokens)


def _vocabulary() -> list[tuple[str, float, int]]:
    """Text, score and kind of each token: specials, every byte, every printable sign, words."""
    tokens = [("<unk>", 0.0, _UNKNOWN), ("<s>", 0.0, _CONTROL), ("</s>", 0.0, _CONTROL)]
    tokens += [(f"<0x{byte:02X}>", -1000.0, _BYTE) for byte in range(256)]
    signs = string.ascii_letters + string.digits + string.punctuation
    tokens += [(sign, -100.0, _NORMAL) for sign in f"▁{signs}"]
    syllables = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
    tokens += [(f"▁{syllable}", -10.0, _NORMAL) for syllable in syllables]
    tokens += [(syllable, -20.0, _NORMAL) for syllable in syllables]
    return tokens


def _tensors(seed: int) -> dict[str, NDArray[np.float32]]:
    import numpy as np

    random = np.random.default_rng(seed)
    words = len(_vocabulary())

    def matrix(rows: int, columns: int, scale: float) -> NDArray[np.float32]:
        return random.normal(0.0, scale, (rows, columns)).astype(np.float32)

    ones = np.ones(EMBEDDING, dtype=np.float32)
    output = random.normal(0.0, 0.4, (words, EMBEDDING)).astype(np.float32)
    # Specials and raw bytes score nothing, so that answers are text and do not end at once.
    output[: 3 + 256] = 0.0
    tensors: dict[str, NDArray[np.float32]] = {"token_embd.weight": matrix(words, EMBEDDING, 1.0)}
    for layer in range(LAYERS):
        tensors[f"blk.{layer}.attn_norm.weight"] = ones
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"blk.{layer}.{part}.weight"] = matrix(EMBEDDING, EMBEDDING, 0.1)
        tensors[f"blk.{layer}.ffn_norm.weight"] = ones
        for part in ("ffn_gate", "ffn_up"):
            tensors[f"blk.{layer}.{part}.weight"] = matrix(FEED_FORWARD, EMBEDDING, 0.1)
        tensors[f"blk.{layer}.ffn_down.weight"] = matrix(EMBEDDING, FEED_FORWARD, 0.1)
    tensors["output_norm.weight"] = ones
    tensors["output.weight"] = output
    return tensors
