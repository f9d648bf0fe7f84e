"""Memory of a prefill at the 2880 vision tokens of LLaVA-NeXT: pruners inside the decoder must not pay what they save."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vtpbench.harness.models.dummy import noise_picture
from vtpbench.harness.models.tiny import tiny_llava_next
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.pruners.registry import build

SIDE = 24
TOKENS = 5 * SIDE**2


class Peak(TorchDispatchMode):
    """Bytes of all tensors that operations have made and that are still alive; what a kernel needs inside itself is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.bytes = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.bytes = max(self.bytes, self.now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._alive.pop(key)


def prefill_peak(name: str, budget: int | None, attention: str = "sdpa") -> int:
    """Measure one prompt's prefill."""
    family, pruner = tiny_llava_next(attention, side=SIDE), build(name, {})
    pipeline = Pipeline(family, pruner, lambda n: budget)
    (encoded,) = pipeline.encode([noise_picture(SIDE * 8, SIDE * 8)])
    assert encoded.original == TOKENS
    batch = pipeline.assemble(["Why?"], [[pipeline.select([encoded], ["key"])[0]]])
    with torch.inference_mode(), Peak() as peak:
        pipeline.generate(batch, 1)
    return peak.bytes


@pytest.fixture(scope="module")
def unpruned() -> int:
    return prefill_peak("vanilla", None)


@pytest.mark.parametrize("name", ["fastv", "sparsevlm", "pyramiddrop"])
def test_a_pruned_prefill_needs_at_most_a_tenth_more_than_an_unpruned_one(name: str, unpruned: int) -> None:
    assert prefill_peak(name, TOKENS // 2) < 1.1 * unpruned


def test_attention_weights_of_a_whole_layer_would_be_noticed(unpruned: int) -> None:
    assert prefill_peak("vanilla", None, "eager") > 10 * unpruned
