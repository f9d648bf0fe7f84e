"""What pruners need to be asked for where a test or a benchmark runs all of them."""

from __future__ import annotations

from typing import Any

OPTIONS: dict[str, dict[str, Any]] = {"oc-vtp": {"checkpoint": "dummy"}}
"""On a model without a trained checkpoint beside it."""
JOINING_OPTIONS: dict[str, dict[str, Any]] = {"tome": {"stage": "post"}}
"""Without which they refuse a model of `JOINING`."""
QWEN_OPTIONS: dict[str, dict[str, Any]] = {
    **JOINING_OPTIONS,
    "pyramiddrop": {"positions": "keep"},
    "sparsevlm": {"positions": "keep"},
    "vscan": {"positions": "keep"},
}
"""Without which they refuse a Qwen-VL model."""
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
JOINING = (*QWEN, "internvl")
"""Families that make a token of several patches behind their towers, and use no CLS."""
DECODERS = ("llava", "qwen2_5_vl", "qwen3_vl")
"""One family of each kind of decoder: positions on one axis, on three, and features that are added inside."""
ONEVISION = "llava_onevision"
BEHIND = (*JOINING, ONEVISION)
"""Families of whose towers no token can leave, and that use no CLS."""
UNSUPPORTED = {(name, family) for name in ("hired", "cdpruner", "trim") for family in BEHIND} | {("downsample", ONEVISION)}
"""Pruners and families that no option brings together."""


def options_for(name: str, family: str) -> dict[str, Any]:
    """Give the options with which a pruner runs on a family."""
    own = QWEN_OPTIONS if family in QWEN else JOINING_OPTIONS if family in BEHIND else {}
    return {**OPTIONS.get(name, {}), **own.get(name, {})}
