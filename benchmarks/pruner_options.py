"""What pruners need to be asked for where a test or a benchmark runs all of them."""

from __future__ import annotations

from typing import Any

OPTIONS: dict[str, dict[str, Any]] = {"oc-vtp": {"checkpoint": "dummy"}}
"""On a model without a trained checkpoint beside it."""
QWEN_OPTIONS: dict[str, dict[str, Any]] = {
    "pyramiddrop": {"positions": "keep"},
    "sparsevlm": {"positions": "keep"},
    "tome": {"stage": "post"},
    "vscan": {"positions": "keep"},
}
"""Without which they refuse a Qwen-VL model."""
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
UNSUPPORTED = {(name, family) for name in ("hired", "cdpruner", "trim") for family in QWEN}
"""Pruners and families that no option brings together."""


def options_for(name: str, family: str) -> dict[str, Any]:
    """Give the options with which a pruner runs on a family."""
    return {**OPTIONS.get(name, {}), **(QWEN_OPTIONS.get(name, {}) if family in QWEN else {})}
