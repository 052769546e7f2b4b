"""The numbers of a model that decide how much memory its context takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamactl.models.ggufbytes import Value

#: Fields of the architecture, without its name before the dot.
DIMENSION_FIELDS = frozenset(
    {
        "context_length",
        "block_count",
        "embedding_length",
        "feed_forward_length",
        "expert_feed_forward_length",
        "expert_used_count",
        "vocab_size",
        "nextn_predict_layers",
        "full_attention_interval",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.key_length_swa",
        "attention.value_length_swa",
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        "attention.shared_kv_layers",
        "attention.causal",
        "ssm.conv_kernel",
        "ssm.inner_size",
        "ssm.state_size",
        "ssm.group_count",
    }
)

#: Of so many layers the last one sees the whole context, the others a window: what llama.cpp knows
#: of architectures whose files do not say it. A window of any other architecture is not honoured
#: there, and so counts for nothing here.
_WINDOW_PERIODS: Mapping[str, int] = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "cohere2": 4,
    "exaone4": 4,
    "olmo2": 4,
    "llama4": 4,
}
#: llama4 attends in chunks, which its files do not size.
_LLAMA4_CHUNK = 8192
#: No model has more; what a header claims beyond it is not counted out.
_MOST_LAYERS = 4096


@dataclass(frozen=True)
class AttentionLayer:
    """One layer's share of a token in the cache: numbers kept of its key and of its value.

    ``windowed``: it keeps only the tokens of the sliding window.
    """

    key: int
    value: int
    windowed: bool


@dataclass(frozen=True)
class Dimensions:
    """What memory depends on, beside the weights themselves.

    ``layers`` are those that keep something of each token. ``recurrent_state`` is how many numbers
    all recurrent layers together keep for one sequence, however long it is. ``feed_forward`` is
    that of all experts that work at a time.
    """

    context_length: int | None
    embedding: int
    feed_forward: int
    heads: int
    vocabulary: int
    layers: tuple[AttentionLayer, ...]
    window: int
    recurrent_state: int


def dimensions_of(fields: Mapping[str, Value], vocabulary: int | None = None) -> Dimensions | None:
    """The dimensions that a header's fields tell; None where too little is told.

    ``vocabulary`` is how many tokens there are, where the file lists them.
    """
    architecture = fields.get("general.architecture")
    if not isinstance(architecture, str):
        return None
    told = _Told(architecture, fields)
    count, embedding = told.number("block_count"), told.number("embedding_length")
    if not 0 < count <= _MOST_LAYERS or embedding <= 0:
        return None
    window = told.number("attention.sliding_window")
    if architecture == "llama4" and not window:
        window = _LLAMA4_CHUNK
    layers = _attention(told, count, embedding, window)
    experts = told.number("expert_feed_forward_length") * told.number("expert_used_count")
    return Dimensions(
        context_length=told.number("context_length") or None,
        embedding=embedding,
        feed_forward=max(told.number("feed_forward_length"), experts),
        heads=told.number("attention.head_count"),
        vocabulary=vocabulary or told.number("vocab_size"),
        layers=tuple(layer for layer in layers if layer.key or layer.value),
        window=window,
        recurrent_state=_recurrent(told, layers),
    )


class _Told:
    """The fields of one architecture; what is not there, or makes no sense, is 0."""

    def __init__(self, architecture: str, fields: Mapping[str, Value]) -> None:
        self.architecture = architecture
        self._fields = fields

    def number(self, name: str) -> int:
        """A number; of one that differs by layer the largest."""
        value = self._fields.get(f"{self.architecture}.{name}")
        if isinstance(value, tuple):
            return max((0, *value))
        return value if isinstance(value, int) and value > 0 else 0

    def by_layer(self, name: str, count: int) -> tuple[int, ...] | None:
        """A number for each layer, whether the file writes one for all or for each."""
        value = self._fields.get(f"{self.architecture}.{name}")
        if isinstance(value, tuple):
            padded = (*value[:count], *[0] * (count - len(value)))
            return tuple(max(0, each) for each in padded)
        return (max(0, value),) * count if isinstance(value, int) else None

    def has(self, name: str) -> bool:
        return self._fields.get(f"{self.architecture}.{name}") is not None


def _attention(told: _Told, count: int, embedding: int, window: int) -> list[AttentionLayer]:
    """What each layer keeps of a token; nothing where it is recurrent, or borrows another's."""
    if told.has("attention.causal") and not told.number("attention.causal"):
        return []
    heads = told.by_layer("attention.head_count", count) or (0,) * count
    kv_heads = told.by_layer("attention.head_count_kv", count) or heads
    per_head = embedding // told.number("attention.head_count") if any(heads) else 0
    key = told.number("attention.key_length") or per_head
    value = told.number("attention.value_length") or per_head
    short_key = told.number("attention.key_length_swa") or key
    short_value = told.number("attention.value_length_swa") or value
    own = count - told.number("attention.shared_kv_layers") - told.number("nextn_predict_layers")
    windowed = _windowed(told, count) if window else (False,) * count
    interval = told.number("full_attention_interval")
    layers = []
    for index, (number, short) in enumerate(zip(kv_heads, windowed, strict=True)):
        if index >= own or (interval and (index + 1) % interval):
            number = 0
        size = (short_key, short_value) if short else (key, value)
        layers.append(AttentionLayer(number * size[0], number * size[1], short))
    return layers


def _windowed(told: _Told, count: int) -> tuple[bool, ...]:
    """Which layers see only the window: as the file says, else as llama.cpp knows it."""
    name = "attention.sliding_window_pattern"
    period = _WINDOW_PERIODS.get(told.architecture, 0)
    pattern = told.by_layer(name, count)
    if pattern is not None:
        if set(pattern) <= {0, 1} and any(pattern):
            return tuple(map(bool, pattern))
        period = told.number(name)
    if period < 2:
        return (False,) * count
    return tuple(index % period < period - 1 for index in range(count))


def _recurrent(told: _Told, layers: list[AttentionLayer]) -> int:
    """The numbers that all recurrent layers (Mamba's, gated delta nets') keep for a sequence."""
    inner, state = told.number("ssm.inner_size"), told.number("ssm.state_size")
    if not inner or not state:
        return 0
    convolved = max(0, told.number("ssm.conv_kernel") - 1)
    one = convolved * (inner + 2 * told.number("ssm.group_count") * state) + inner * state
    recurrent = sum(1 for layer in layers if not layer.key and not layer.value)
    # Where every layer attends as well, every layer is both.
    return one * (recurrent or len(layers))
