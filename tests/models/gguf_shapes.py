"""Models of any shape that llama.cpp loads: what is in their tensors does not matter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from tests.fakes.gguf_files import add_tokenizer


@dataclass(frozen=True)
class Shape:
    """A model's dimensions; ``window`` is that of a gemma3, which has one in five of six layers."""

    architecture: str = "llama"
    layers: int = 4
    embedding: int = 256
    feed_forward: int = 512
    heads: int = 8
    kv_heads: int = 2
    window: int = 0


def write_model(path: Path, shape: Shape) -> Path:
    """Write a model of this shape, all of zeros."""
    head = shape.embedding // shape.heads
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_context_length(32768)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(1e-5)
    if shape.window:
        writer.add_sliding_window(shape.window)
    words = add_tokenizer(writer)
    for name, rows, columns in _matrices(shape, words, head):
        writer.add_tensor(f"{name}.weight", np.zeros((rows, columns), dtype=np.float16))
    for name, length in _vectors(shape, head):
        writer.add_tensor(f"{name}.weight", np.zeros(length, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _matrices(shape: Shape, words: int, head: int) -> list[tuple[str, int, int]]:
    wide, feed, keys = shape.embedding, shape.feed_forward, shape.kv_heads * head
    found = [("token_embd", words, wide), ("output", words, wide)]
    for layer in range(shape.layers):
        found += [
            (f"blk.{layer}.attn_q", wide, wide),
            (f"blk.{layer}.attn_k", keys, wide),
            (f"blk.{layer}.attn_v", keys, wide),
            (f"blk.{layer}.attn_output", wide, wide),
            (f"blk.{layer}.ffn_gate", feed, wide),
            (f"blk.{layer}.ffn_up", feed, wide),
            (f"blk.{layer}.ffn_down", wide, feed),
        ]
    return found


def _vectors(shape: Shape, head: int) -> list[tuple[str, int]]:
    found = [("output_norm", shape.embedding)]
    of_a_layer = [("attn_norm", shape.embedding), ("ffn_norm", shape.embedding)]
    if shape.architecture.startswith("gemma"):
        of_a_layer += [
            ("post_attention_norm", shape.embedding),
            ("post_ffw_norm", shape.embedding),
            ("attn_q_norm", head),
            ("attn_k_norm", head),
        ]
    for layer in range(shape.layers):
        found += [(f"blk.{layer}.{name}", length) for name, length in of_a_layer]
    return found
