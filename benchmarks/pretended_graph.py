"""A CUDA graph on the pretended GPU: what a device was given to do, done again at the same addresses.

As on a GPU, nothing runs while it is captured: what it computes is garbage until it is replayed, and what it would write to is as
it was. A replay does the recorded operations and nothing of the host's; what it reads must still be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

GARBAGE = 255
"""Every byte of what is not computed yet: NaN, or an index that is nowhere."""


@dataclass(frozen=True)
class _Address:
    """Where a tensor lies; `owned` holds the memory where the graph itself took it."""

    there: StorageWeakRef
    owned: torch.UntypedStorage | None
    dtype: torch.dtype
    layout: tuple[Sequence[int], Sequence[int], int]

    def tensor(self) -> Tensor:
        """Look there; raises `RuntimeError` where the memory was given back since the capture."""
        storage = self.owned or torch.UntypedStorage._new_with_weak_ptr(self.there.cdata)
        if storage is None:
            raise RuntimeError("a graph reads memory that was given back since it was captured")
        size, strides, offset = self.layout
        return torch.empty(0, dtype=self.dtype).set_(storage, offset, size, strides)  # type: ignore[call-overload] # its stub lacks it


@dataclass(frozen=True)
class _Operation:
    func: Any
    args: Any
    options: Any
    results: tuple[_Address | None, ...]
    """Where new memory was written; None for what is an operand, or lies in one."""


class PretendedGraph:
    """Operations in their order."""

    def __init__(self) -> None:
        self._operations: list[_Operation] = []
        self._owned: dict[int, torch.UntypedStorage] = {}
        self._numbers: set[int] = set()
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def run(self, func: Any, args: Any, options: Any, numbers: Sequence[Tensor]) -> Any:
        """Run an operation on tensors of the host, and note it; `numbers` among them are handed over by their value."""
        for x in numbers:
            self._owned[_number(x)] = x.untyped_storage()
            self._numbers.add(_number(x))
        self._keep_written(func, args, options)
        result = func(*args, **options)
        known = {_number(x) for x in tree_leaves((args, options)) if isinstance(x, Tensor)}
        fresh = [x if isinstance(x, Tensor) and _number(x) not in known else None for x in tree_leaves(result)]
        for x in fresh:
            if x is not None:
                self._owned[_number(x)] = x.untyped_storage()
        where = tree_map(self._address, (args, options))
        self._operations.append(_Operation(func, *where, tuple(None if x is None else self._address(x) for x in fresh)))
        return result

    def end(self) -> None:
        """Undo what a capture would not have done."""
        for storage, before in self._before.values():
            storage.copy_(before)
        self._before.clear()
        for number, storage in self._owned.items():
            if number not in self._numbers:
                storage.fill_(GARBAGE)

    def replay(self) -> None:
        """Do all operations again."""
        with unset_fake_temporarily(), _disable_current_modes(), torch.inference_mode():
            for operation in self._operations:
                args, options = tree_map(_look, (operation.args, operation.options), is_leaf=_is_address)
                results = tree_leaves(operation.func(*args, **options))
                for address, result in zip(operation.results, results, strict=True):
                    if address is not None:
                        address.tensor().copy_(result)

    def _address(self, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        storage = x.untyped_storage()
        layout = tuple(x.size()), x.stride(), x.storage_offset()
        return _Address(StorageWeakRef(storage), self._owned.get(_number(x)), x.dtype, layout)

    def _keep_written(self, func: Any, args: Sequence[Any], options: dict[str, Any]) -> None:
        """Remember what is outside and will be written to."""
        for x in _written(func, args, options):
            if _number(x) not in self._owned and _number(x) not in self._before:
                storage = x.untyped_storage()
                self._before[_number(x)] = storage, storage.clone()


def _written(func: Any, args: Sequence[Any], options: dict[str, Any]) -> Iterator[Tensor]:
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else options.get(argument.name)
            yield from (x for x in tree_leaves(value) if isinstance(x, Tensor))


def _number(x: Tensor) -> int:
    """Tell memory apart."""
    return int(x.untyped_storage()._cdata)


def _is_address(x: Any) -> bool:
    return isinstance(x, _Address)


def _look(x: Any) -> Any:
    return x.tensor() if isinstance(x, _Address) else x
