"""How many tokens a language model was made for."""

from __future__ import annotations

from typing import Any

STRETCHED = ("linear", "dynamic", "yarn")
"""Kinds of rotary scaling that a configuration adds to a model without saying the new length as its own."""


def position_limit(text: Any) -> int | None:
    """Read the largest number of tokens, answer included, from a text model's configuration; None where it has none."""
    stated: int | None = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    if stated is None or rope.get("rope_type") not in STRETCHED:
        return stated
    return max(stated, int(rope.get("factor", 1) * (rope.get("original_max_position_embeddings") or stated)))
