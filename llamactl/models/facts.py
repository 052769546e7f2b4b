"""What a GGUF's header tells of a model, as people read it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from llamactl.models.gguf import GGUFHeader


def facts_of(header: GGUFHeader, *, whole: bool) -> Mapping[str, str]:
    """The facts by name, without those that the file does not tell.

    The parameters of a model with missing files are those of a part of it, so they are left out
    unless it is ``whole``.
    """
    facts = {
        "Architecture": header.architecture,
        "Parameters": _count_text(header.parameters) if whole else None,
        "Quantisation": header.quantisation,
        "Context length": _number(header.context_length),
        "Layers": _number(header.layers),
        "Experts": _number(header.experts),
        "Tokenizer": header.tokenizer,
        "Vocabulary": _number(header.vocabulary_size),
        "Chat template": "yes" if header.chat_template else "none",
    }
    return {name: value for name, value in facts.items() if value}


def _number(value: int | None) -> str | None:
    return f"{value:,}" if value else None


def _count_text(count: int) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
