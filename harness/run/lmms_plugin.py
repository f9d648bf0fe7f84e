"""Registration with lmms-eval, entry point group `lmms_eval.models`.

A module of its own, because lmms-eval asks for it while it is still being imported; `lmms_model` needs it whole.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """Tell lmms-eval where `--model vtpbench` is."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("vtpbench", simple_class_path="vtpbench.harness.run.lmms_model.Plugin")
