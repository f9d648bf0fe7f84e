"""A GPU that is only pretended, on a machine without one: what would make the host wait for it, and what it would refuse.

Models and pruners run as they are, on tensors that say that they are on `GPU` and keep their values in the host's memory.
What happens to such tensors is judged as torch's CUDA code would: operands on both sides are refused; reading a value, a
shape that depends on values, a plain copy in either direction, and a `non_blocking` copy above 64 KiB from memory that is
not pinned, which CUDA stages, make the host wait. An operation that waits and is not listed here passes, so that a trace on a
GPU has the last word.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from types import FrameType
from typing import Any
from unittest.mock import patch
from weakref import WeakSet

import torch
from pretended_graph import PretendedGraph
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

from vtpbench.harness.efficiency.operations import is_composite, launches
from vtpbench.pruners.base import Pruner
from vtpbench.pruners.transfer import STAGED_BYTES

GPU = torch.device("cuda", 7)
"""The last that torch can pretend: what is kept for a device, such as tables, is then not that of the real GPU in use."""
HOST = torch.device("cpu")
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
_UNDIVIDED = {"scaled_dot_product_attention", "gru_cell"}
"""Made of other operations, which they choose by asking the driver."""


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


class Pretended(Tensor):
    """A tensor that says that it is on `GPU`; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Pretended:
        """Stand for a tensor of the host, of which no copy is made."""
        size, strides, offset = held.size(), held.stride(), held.storage_offset()
        made: Pretended = Tensor._make_wrapper_subclass(
            cls, size, strides=strides, storage_offset=offset, dtype=held.dtype, device=GPU
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        """Copy to the host first, as torch does from a GPU."""
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override] # torch's takes contents, too
        return repr(self.cpu())

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # its stub takes it for a method of objects
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse: `PretendedGpu` sees operations first while it is entered."""
        raise RuntimeError(f"{func} on a pretended GPU that is no longer there")


class PretendedEvent:
    """Where the device is; everything is done when it is recorded."""

    def __init__(self, **_: object) -> None:
        self.at = 0.0

    def record(self, stream: object = None) -> None:
        """Note where the device is, and when."""
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        """Wait until it is there."""

    def elapsed_time(self, other: PretendedEvent) -> float:
        """Milliseconds until the device came to another event."""
        return 1000 * (other.at - self.at)


class PretendedStream:
    """A queue of the device, in which all is done at once."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device

    def wait_stream(self, other: PretendedStream) -> None:
        """Let all that another was given be done first."""


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Let tensors be made on `GPU` and brought there inside the context."""
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter cannot change its kind of tensor
    gpu = PretendedGpu()
    try:  # while a mode of fake tensors is entered, naming a GPU looks for no driver
        with patch.multiple(torch.cuda, **gpu.runtime()), FakeTensorMode(allow_non_fake_inputs=True), gpu:
            yield gpu
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)


class PretendedGpu(TorchDispatchMode):
    """What `pretended_gpu` saw.

    Attributes
    ----------
    waits : what made the host wait, in order of time
    launched : operations that the device was given; one may be several kernels

    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's has no annotations
        self.waits: list[Wait] = []
        self.launched = 0
        self._pinned: Any = WeakTensorKeyDictionary()
        self._graph: PretendedGraph | None = None
        self._numbers = count()
        self._pools: dict[tuple[int, int], WeakSet[PretendedGraph]] = {}

    def runtime(self) -> dict[str, Any]:
        """Stand for what torch asks of the driver."""
        return {
            "Event": PretendedEvent,
            "Stream": PretendedStream,
            "CUDAGraph": lambda: CapturedByGpu(self),
            "current_stream": PretendedStream,
            "stream": lambda stream: nullcontext(),
            "graph": lambda graph, pool, **_: self.capturing(graph, pool),
            "graph_pool_handle": lambda: (0, next(self._numbers)),
            "is_current_stream_capturing": lambda: self._graph is not None,
            "get_device_name": lambda device=None: "pretended GPU",
            "synchronize": lambda device=None: None,
            "empty_cache": lambda: None,
            "reset_peak_memory_stats": lambda device=None: None,
            "max_memory_allocated": lambda device=None: 0,
        }

    @contextmanager
    def capturing(self, graph: PretendedGraph, pool: tuple[int, int]) -> Iterator[None]:
        """Refuse what a CUDA graph cannot hold: whatever waits, and copies from memory of the host that is not pinned.

        And a pool of memory that all graphs have left, which torch refuses where anything else of it is in use.
        """
        if not self._pools.setdefault(pool, WeakSet([graph])):
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")
        self._pools[pool].add(graph)
        self._graph = graph
        try:
            yield
        finally:
            self._graph = None
            with unset_fake_temporarily(), _disable_current_modes():
                graph.end()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        options, name = dict(kwargs or {}), func.overloadpacket.__name__
        if name not in _UNDIVIDED and is_composite(func):
            with self:
                return func.decompose(*args, **options)
        tensors = list(_tensors((args, options)))
        there = any(isinstance(x, Pretended) for x in tensors)
        place = options.get("device") or (GPU if there else HOST)
        if there or place.type == GPU.type:
            if (what := self._reason(name, args, options, tensors)) is not None:
                if self._graph is not None:
                    raise RuntimeError(f"operation not permitted when stream is capturing: {what}")
                self.waits.append(_wait(what, sys._getframe(1)))
            self.launched += launches(func)
        if name == "_pin_memory":
            return self._pin(args[0])
        if "device" in options:
            options["device"] = HOST
        held = _changed(_held, args), _changed(_held, options)
        with unset_fake_temporarily():
            if self._graph is not None and place.type == GPU.type:
                numbers = [x for x in tensors if not isinstance(x, Pretended) and x not in self._pinned]
                result = self._graph.run(func, *held, numbers)
            else:
                result = func(*held[0], **held[1])
        return _wrapped(result, tensors) if place.type == GPU.type else result

    def _reason(self, name: str, args: Sequence[Any], options: dict[str, Any], tensors: list[Tensor]) -> str | None:
        """Say why an operation waits; None where it does not. Raises `RuntimeError` for operands that a GPU would refuse."""
        mixed = not all(isinstance(x, Pretended) for x in tensors)
        if name == "_to_copy" and (mixed or options.get("device") == HOST):
            return self._copied(args[0], not mixed, bool(options.get("non_blocking")))
        if name == "copy_" and mixed:
            non_blocking = bool([*args[2:], *options.values(), False][0])
            if non_blocking and args[0] in self._pinned:
                return None  # whoever reads it waits for an event first
            return self._copied(args[1], isinstance(args[1], Pretended), non_blocking)
        if name in _BY_VALUE:
            return _BY_VALUE[name]
        if name == "repeat_interleave" and options.get("output_size") is None:
            return "repeat_interleave"
        if name in _INDEXING and isinstance(args[0], Pretended):
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                if name != "index" and args[2].numel() == 1 and not isinstance(args[2], Pretended):
                    return None  # one value of the host for all: a fill, whose shape depends on nothing
                return "an index that is a mask"
            if not all(isinstance(index, Pretended) for index in indices):
                return "an index from the host"
        if name == "where" and mixed:  # also without a dimension, which others take as a number
            return "a copy to the device"
        if any(not isinstance(x, Pretended) and x.dim() for x in tensors):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but some are on the host")
        return None

    def _copied(self, x: Tensor, to_host: bool, non_blocking: bool) -> str | None:
        if to_host:
            return "a copy to the host"
        size = x.numel() * x.element_size()
        if self._graph is not None and size and x not in self._pinned:
            raise RuntimeError("cannot copy between CPU and CUDA tensors during graph capture unless the CPU tensor is pinned")
        goes_on = non_blocking and (x in self._pinned or size <= STAGED_BYTES)
        return None if goes_on or not size else "a copy to the device"

    def _pin(self, x: Tensor) -> Tensor:
        with unset_fake_temporarily():
            pinned = x.clone()
        self._pinned[pinned] = True
        return pinned


class CapturedByGpu(PretendedGraph):
    """A graph that is one launch."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def replay(self) -> None:
        """Launch it."""
        self._gpu.launched += 1
        super().replay()


@contextmanager
def moved(model: nn.Module) -> Iterator[None]:
    """Bring a model's parameters and buffers to the pretended GPU, in inference mode; afterwards they are as before."""
    stores: list[dict[str, Any]] = [store for module in model.modules() for store in (module._parameters, module._buffers)]
    before = [dict(store) for store in stores]
    shared: dict[int, Pretended] = {}
    try:
        with torch.inference_mode():
            for store in stores:
                for name, x in store.items():
                    store[name] = x if x is None else shared.setdefault(id(x), Pretended(x.detach()))
        yield
    finally:
        for store, own in zip(stores, before, strict=True):
            store.update(own)


def _tensors(x: Any) -> Iterator[Tensor]:
    """List the tensors among what an operation takes; torch's own way through trees is a third of the time of a run."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (tuple, list)):
        for each in x:
            yield from _tensors(each)
    elif isinstance(x, dict):
        yield from _tensors(tuple(x.values()))


def _changed(change: Callable[[Any], Any], x: Any) -> Any:
    """Change the leaves of what an operation takes or gives."""
    if isinstance(x, (tuple, list)):
        return type(x)([_changed(change, each) for each in x])
    if isinstance(x, dict):
        return {name: _changed(change, each) for name, each in x.items()}
    return change(x)


def _held(x: Any) -> Any:
    return x.held if isinstance(x, Pretended) else x


def _wrapped(result: Any, operands: list[Tensor]) -> Any:
    """Put results on the device; what was changed in place is its operand."""
    known = {id(x.held): x for x in operands if isinstance(x, Pretended)}

    def wrap(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        same = known.get(id(x))
        if same is None:
            return Pretended(x)
        if same.shape != x.shape:
            raise NotImplementedError("a tensor on the pretended GPU cannot change its shape in place")
        return same

    return _changed(wrap, result)


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
