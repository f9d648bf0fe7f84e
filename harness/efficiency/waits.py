"""Find what would make the host wait for a GPU, on a machine without one.

Everything runs on the CPU as it is. A tensor counts as on the device, but for those that are made without naming a device,
those that are fetched with `.cpu()`, and what is computed from such tensors alone. What waits is known from torch's CUDA
code: reading a value, shapes that depend on values, plain copies in both directions, and copies that are `non_blocking`
above 64 KiB, for which CUDA stages host memory that is not pinned. Operations that are not listed here pass, so that a
trace on a GPU has the last word.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from vtpbench.harness.efficiency.stages import Prompts, Subject, run
from vtpbench.pruners.base import Pruner
from vtpbench.pruners.sending import STAGED_BYTES, send

SPAN = ("pruner", "projector", "prefill")
"""Stages between the end of the tower and the first token."""
_MARKED: Any = WeakTensorKeyDictionary()
"""Tensors whose side was seen: True = on the host."""
_READ = {"tolist", "numpy", "__array__", "__repr__"}
_FROM_DATA = {"tensor", "as_tensor", "asarray", "new_tensor"}
_BY_VALUE = {
    "_local_scalar_dense": "a value is read",
    "equal": "a value is read",
    "allclose": "a value is read",
    "nonzero": "nonzero",
    "masked_select": "masked_select",
    "_unique": "unique",
    "_unique2": "unique",
    "unique_dim": "unique",
    "unique_consecutive": "unique",
    "unique_dim_consecutive": "unique",
    "bincount": "bincount",
}
_INDEXING = {"index", "index_put", "index_put_"}


@dataclass(frozen=True)
class Wait:
    """One wait.

    Attributes
    ----------
    what : makes it necessary
    module, line, function : the place that asks for it, the innermost one outside torch
    in_pruner : whether a pruner's own method was running

    """

    what: str
    module: str
    line: int
    function: str
    in_pruner: bool

    @property
    def own(self) -> bool:
        """Whether this project asks for it, and not a library that it calls."""
        return self.module.startswith("vtpbench.")


@contextmanager
def watching() -> Iterator[list[Wait]]:
    """Collect waits while the context is open."""
    waits: list[Wait] = []
    with _Operations(waits), _Calls(waits):
        yield waits


def waits_before_first_token(subject: Subject, prompts: Prompts) -> list[Wait]:
    """Run once and list what waits between the end of the vision tower and the first token, in order of time.

    What is made once for each geometry and then kept for the next picture is not counted: the run is the second one.
    """
    quick = Prompts(prompts.images, prompts.question, 2)
    with watching() as waits:
        run(subject, quick, lambda stage: None)
        found, done = [], len(waits)

        def mark(stage: str) -> None:
            nonlocal done
            if stage in SPAN:
                found.extend(waits[done:])
            done = len(waits)

        run(subject, quick, mark)
    return found


class _Calls(TorchFunctionMode):
    """Sees calls as they are written: what reads a tensor's memory, what copies, and what is made on which side."""

    def __init__(self, waits: list[Wait]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        name, tensors = getattr(func, "__name__", ""), _tensors(args, options)
        if name in ("__getitem__", "__setitem__") and not _on_host(args[0]) and _has_list(args[1]):
            self._note("an index from a Python list")
        elif name in _READ and not _on_host(args[0]):
            self._note("a value is read")
        result = func(*args, **options)
        placed = args[:1] if name == "new_tensor" else options.values()
        if name in _FROM_DATA and _side(placed) == "device" and _blocks(result, False):
            self._note("a copy to the device")
        if name in ("to", "cpu"):
            return self._moved(args, options, "host" if name == "cpu" else _side([*args[1:], *options.values()]), result)
        if not tensors and _side(options.values()) != "device":
            for made in _tensors(result):
                _MARKED[made] = True
        return result

    def _moved(self, args: Sequence[Any], options: dict[str, Any], side: str | None, result: Tensor) -> Tensor:
        """Note a copy to the other side; its result is then another tensor, which it would not be on the CPU."""
        if side is None or (side == "host") == _on_host(args[0]):
            return result
        flags = [value for value in args[1:] if isinstance(value, bool)]
        if side == "host":
            self._note("a copy to the host")
        elif not _is_sent(sys._getframe(2)) and _blocks(result, bool(options.get("non_blocking", flags and flags[0]))):
            self._note("a copy to the device")
        copy = result.view_as(result)
        _MARKED[copy] = side == "host"
        return copy

    def _note(self, what: str) -> None:
        self._waits.append(_wait(what, sys._getframe(2)))


class _Operations(TorchDispatchMode):
    """Sees operations, also those inside of calls, and hands on which side their results are on."""

    def __init__(self, waits: list[Wait]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's has no annotations
        self._waits = waits

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        tensors = _tensors(args, options)
        with self:  # in inference mode operations that are made of others arrive whole
            result = func.decompose(*args, **options)
        if result is not NotImplemented:
            return result
        result = func(*args, **options)
        if _on_host_alone(tensors):
            for made in _tensors(result):
                _MARKED[made] = True
        elif (what := _reason(func.overloadpacket.__name__, args, options, tensors)) is not None:
            self._waits.append(_wait(what, sys._getframe(1)))
        return result


def _reason(name: str, args: Sequence[Any], options: dict[str, Any], tensors: list[Tensor]) -> str | None:
    """Say why an operation on the device waits; None where it does not."""
    if name in _BY_VALUE:
        return _BY_VALUE[name]
    if name == "repeat_interleave" and options.get("output_size") is None:
        return "repeat_interleave"
    if name in _INDEXING and any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]):
        filled = name != "index" and args[2].numel() == 1  # one value for all: a fill, whose shape depends on nothing
        return None if filled else "an index that is a mask"
    if name == "copy_" and any(map(_on_host, tensors)):
        blocks = _on_host(args[0]) or _blocks(args[1], bool(args[2]) if len(args) > 2 else bool(options.get("non_blocking")))
        return "a copy" if blocks else None
    if name == "where" and any(map(_on_host, tensors)):  # also without a dimension, which others take as a number
        return "a copy to the device"
    if any(_on_host(tensor) and tensor.dim() for tensor in tensors):
        return "a tensor of the host among those of the device"
    return None


def _blocks(copied: Tensor, non_blocking: bool) -> bool:
    size = copied.numel() * copied.element_size()
    return size > STAGED_BYTES or (size > 0 and not non_blocking)


def _is_sent(frame: FrameType) -> bool:
    """Whether `send` makes the copy, which on CUDA pins what is large."""
    return _module(frame) == send.__module__


def _on_host(tensor: Tensor) -> bool:
    return bool(_MARKED.get(tensor, False))


def _on_host_alone(operands: list[Tensor]) -> bool:
    """Whether an operation runs on the host; torch makes scalars of the numbers among its operands, on no side."""
    return any(map(_on_host, operands)) and all(_on_host(operand) for operand in operands if operand.dim())


def _side(arguments: Any) -> Literal["host", "device"] | None:
    """Read off the arguments of a call where its result is to be; a device that is written out as "cpu" is the host."""
    for value in arguments:
        if isinstance(value, torch.device):
            return "device"
        if value == "cpu" if isinstance(value, str) else isinstance(value, Tensor) and _on_host(value):
            return "host"
        if isinstance(value, Tensor):
            return "device"
    return None


def _tensors(*values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(*value)
        elif isinstance(value, Mapping):
            found += _tensors(*value.values())
    return found


def _has_list(index: Any) -> bool:
    return any(isinstance(part, list) for part in (index if isinstance(index, tuple) else (index,)))


def _wait(what: str, frame: FrameType | None) -> Wait:
    """Look for the place outside torch, and for a pruner that runs."""
    stack = list(_frames(frame))
    place = next(frame for frame in stack if _module(frame).split(".")[0] != "torch" and _module(frame) != __name__)
    running = any(isinstance(frame.f_locals.get("self"), Pruner) for frame in stack)
    return Wait(what, _module(place), place.f_lineno, place.f_code.co_name, running)


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
