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
"""Without which they refuse Qwen2.5-VL."""
UNSUPPORTED = {(name, "qwen2_5_vl") for name in ("hired", "cdpruner", "trim")}
"""Pruners and families that no option brings together."""


def options_for(name: str, family: str) -> dict[str, Any]:
    """Give the options with which a pruner runs on a family."""
    return {**OPTIONS.get(name, {}), **(QWEN_OPTIONS.get(name, {}) if family == "qwen2_5_vl" else {})}
