"""Decoding as tasks ask for it; vtpbench decodes greedily."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vtpbench.pruners.errors import UserError

FALLBACK_MAX_NEW_TOKENS = 1024
"""Where a task does not say; the stock LLaVA adapters of lmms-eval use the same."""


def greedy(asked: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Write a task's generation arguments out in full; raises `UserError` where they are not greedy.

    `name` says in the message whose they are. Like lmms-eval's own adapters, take a temperature above 0 for sampling.
    """
    samples = asked.get("do_sample") or float(asked.get("temperature") or 0) > 0
    if samples or (asked.get("num_beams") or 1) > 1:
        kind = "sampling" if samples else "beam search"
        raise UserError(f"{name} asks for {kind}; vtpbench decodes greedily, override its generation_kwargs")
    until = asked.get("until", ["\n\n"])  # lmms-eval's own fallback
    return {
        "do_sample": False,
        "max_new_tokens": asked.get("max_new_tokens") or FALLBACK_MAX_NEW_TOKENS,
        "until": [until] if isinstance(until, str) else list(until or ()),
    }
