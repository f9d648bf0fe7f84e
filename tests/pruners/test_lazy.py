from __future__ import annotations

import subprocess
import sys

import torch

from vtpbench.pruners.lazy import torch as deferred


def test_it_is_torch() -> None:
    assert deferred.Tensor is torch.Tensor
    assert deferred.nn.functional.normalize is torch.nn.functional.normalize


def test_describing_a_pruner_needs_no_torch_and_choosing_imports_it() -> None:
    code = """
import sys
from vtpbench.pruners.base import LLAVA_1_5_7B
from vtpbench.pruners.registry import BUILT_IN, build
for name in BUILT_IN:
    if name != "sequence":  # has no default
        build(name, {}).cuts(192, 576, LLAVA_1_5_7B)
assert "torch" not in sys.modules
from vtpbench.pruners.random import private_generator
print(private_generator(1).initial_seed() > 0, "torch" in sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.split() == ["True", "True"], shown.stderr
