"""Run a model that has no weights, on torch's `meta` device, for the sake of its shapes.

Tensors there have a shape and no values. A vision tower with windows, though, asks for the sizes of its pictures, so that
integers which the host made stay what they are: they are not brought to that device, and follow it only where they meet a tensor
that is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from vtpbench.harness.efficiency.operations import is_composite

NOWHERE = torch.device("meta")


class KnownIntegers(TorchDispatchMode):
    """Keep the host's integers while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's has no annotations

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        options = dict(kwargs or {})
        if is_composite(func):
            with self:
                return func.decompose(*args, **options)
        if func is torch.ops.aten._to_copy.default and options.get("device") == NOWHERE and _is_known(args[0]):
            return func(*args, **{**options, "device": args[0].device})
        if any(isinstance(x, Tensor) and x.is_meta for x in tree_leaves((args, options))):
            args, options = tree_map(_follow, (tuple(args), options))
        return func(*args, **options)


def _is_known(x: Tensor) -> bool:
    return not x.is_meta and not x.is_floating_point()


def _follow(x: Any) -> Any:
    return x.to(NOWHERE) if isinstance(x, Tensor) and x.dim() else x
