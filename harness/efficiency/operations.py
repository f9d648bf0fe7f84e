"""What torch's operations move and how long they take, counted while they run, stage by stage.

Bytes are those of each operand and each result, once: what kernels that run one after the other move between memory and
device. What a cache keeps from one kernel to the next is counted as if it had been moved, views move nothing, and of a table in
which rows are looked up only these are read.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vtpbench.harness.records.efficiency import NOTHING, StageWork

_READ_AS_WRITTEN = {"embedding", "index", "index_select", "gather", "copy_"}
"""They read as much as they write, whatever the size of their operands."""
_NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh", "detach"}


class WatchedOperations(TorchDispatchMode):
    """Watches while it is entered.

    Attributes
    ----------
    by_stage : of each stage that was marked; times are the host's, those of a CPU, which is done when an operation returns

    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's has no annotations
        self.by_stage: dict[str, StageWork] = {}
        self._seconds, self._launches, self._moved = 0.0, 0, 0

    def mark(self, stage: str) -> None:
        """Say that what was done since the previous mark was `stage`."""
        before = self.by_stage.get(stage, NOTHING)
        self.by_stage[stage] = StageWork(
            device_ms=before.device_ms + 1000 * self._seconds,
            launches=before.launches + self._launches,
            moved_bytes=before.moved_bytes + self._moved,
        )
        self._seconds, self._launches, self._moved = 0.0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        options = dict(kwargs or {})
        if is_composite(func):
            with self:
                return func.decompose(*args, **options)
        start = time.perf_counter()
        result = func(*args, **options)
        if launches(func):
            self._seconds += time.perf_counter() - start
            self._launches += 1
            written = _bytes(result)
            by_result = func.overloadpacket.__name__ in _READ_AS_WRITTEN
            self._moved += 2 * written if by_result else written + _bytes((args, options))
        return result


def _bytes(tree: Any) -> int:
    return sum(_own_bytes(x) for x in tree_leaves(tree) if isinstance(x, Tensor))


def _own_bytes(x: Tensor) -> int:
    """Size of what differs: a dimension that is expanded lies in memory once."""
    size = x.element_size()
    for length, stride in zip(x.shape, x.stride(), strict=True):
        size *= 1 if stride == 0 and length > 1 else length
    return size


@cache
def is_composite(func: Any) -> bool:
    """Whether an operation is made of others; in inference mode such a one arrives whole."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


@cache
def launches(func: Any) -> bool:
    """Whether an operation has work for a device: it makes neither a view nor room alone."""
    aliases = [returned.alias_info for returned in func._schema.returns]
    is_view = any(alias is not None and not alias.is_write for alias in aliases)
    return func.overloadpacket.__name__ not in _NOTHING and not is_view
