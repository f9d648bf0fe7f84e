"""Passes of a tower or a decoder over inputs of one shape, captured as CUDA graphs where they come again.

A pass is captured with all that the host decides in it: token counts, layouts, tables. What may differ from one batch to the
next enters through tensors at fixed addresses. It is captured when its key comes for the second time. The first replay is
compared with a run on the same inputs: a graph that gives other numbers is never replayed, so that no answer depends on what
was asked before, and neither is a pass that reads from the device, or brings it what belongs to one batch alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import KeptCopies

if TYPE_CHECKING:
    from torch import Tensor

STEPS = "decoding steps"
"""Name of what is captured token by token, beside those of passes."""
KEPT, SEEN = 128, 4096
"""Keys that are captured at once, those behind them are run; and keys of which it is known that they came."""
SETS = 128
"""Sets of buffers in the same memory that are known at once."""

WATCHED = "every selection is to be shown to an observer"
"""Why a pass in which tokens leave is run."""
CROWDED = f"there are {KEPT} others, and no more are captured at once"
"""Why a pass is run that came too late."""

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Makes something that does again what a function does to the same addresses."""


class Computed(Protocol):
    """What a pass gives."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """All that was computed."""
        ...


T = TypeVar("T", bound=Computed)


@dataclass(frozen=True)
class Pass(Generic[T]):
    """A pass that may be captured.

    Attributes
    ----------
    name : what kind of pass it is, in words: reasons are listed by it
    key : all that the host decides by; passes of one key differ in `tensors` alone
    tensors : all that it depends on, on the device
    launch : runs it
    again : runs it on tensors like `tensors`, with nothing else of the batch, and in what `place` gave
    place : gives lasting room for an outcome like one that is shown
    obstacle : why it cannot be captured, as is known beforehand; empty where nothing is known

    """

    name: str
    key: Hashable
    tensors: Sequence[Tensor]
    launch: Callable[[], T]
    again: Callable[[Sequence[Tensor], Any], T]
    place: Callable[[T], Any] = lambda outcome: None
    obstacle: str = ""


class SharedMemory:
    """Buffers of which one set is in use at a time: all sets lie in the same memory."""

    def __init__(self, device: torch.device, dtype: torch.dtype, forget: Callable[[], None]) -> None:
        """Take `forget` to be called before memory is given back in which earlier sets lie."""
        self._memory, self._forget = torch.empty(0, device=device, dtype=dtype), forget
        self._sets: dict[tuple[tuple[int, ...], ...], tuple[Tensor, ...]] = {}

    def __len__(self) -> int:
        """Count the numbers that there is room for."""
        return len(self._memory)

    def take(self, *sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Give a buffer of each size, one behind the other; more than there is takes new memory.

        Asked for again, a set is the same object.
        """
        lengths = [prod(size) for size in sizes]
        if sum(lengths) > len(self._memory):
            self._forget()
            self._sets.clear()
            self._memory = self._memory.new_empty(0)  # given back before more is taken
            self._memory = self._memory.new_empty(sum(lengths))
        if sizes not in self._sets:
            if len(self._sets) == SETS:
                self._sets.clear()
            parts = self._memory[: sum(lengths)].split(lengths)
            self._sets[sizes] = tuple(part.view(size) for part, size in zip(parts, sizes, strict=True))
        return self._sets[sizes]


@dataclass(frozen=True)
class _Recording:
    """A captured pass: its inputs, its outcome and all that it reads lie where they were, as long as it is replayed."""

    inputs: Sequence[Tensor]
    outcome: Any
    replay: Callable[[], None]
    copies: KeptCopies

    def __call__(self, tensors: Sequence[Tensor]) -> Any:
        for own, given in zip(self.inputs, tensors, strict=True):
            own.copy_(given)
        self.replay()
        return self.outcome


class CapturedPasses:
    """Passes of one model.

    Attributes
    ----------
    refused : why passes are run and not replayed, by their name
    replays : how often passes were replayed, by their name

    """

    def __init__(self, capture: Capture | None, device: torch.device, dtype: torch.dtype) -> None:
        self.capture = capture
        self.memory = SharedMemory(device, dtype, self._forget)
        self.refused: dict[str, str] = {}
        self.replays: dict[str, int] = {}
        self._seen: set[int] = set()
        self._recordings: dict[Hashable, _Recording | str] = {}
        self._active = self._any_size = False

    @property
    def captured(self) -> int:
        """Count the passes that are replayed."""
        return sum(isinstance(each, _Recording) for each in self._recordings.values())

    @property
    def holds_memory(self) -> bool:
        """Whether something is captured, or lies ready for it."""
        return bool(self.captured or len(self.memory))

    @contextmanager
    def applied(self, active: bool = True, *, any_size: bool = False) -> Iterator[None]:
        """Replay what can be inside the context; `any_size` = also what is so large that launches do not matter."""
        before = self._active, self._any_size
        self._active, self._any_size = active and self.capture is not None, any_size or self._any_size
        try:
            yield
        finally:
            self._active, self._any_size = before

    def worth(self, size: int, largest: int) -> bool:
        """Whether a pass of some size is to be replayed, where those above `largest` keep a device busy as they are."""
        return self._active and (self._any_size or size <= largest)

    def refuse(self, name: str, why: str) -> None:
        """Say why a kind of pass is always run."""
        if self._active:
            self.refused[name] = why

    def run(self, asked: Pass[T]) -> tuple[T, bool]:
        """Give the outcome of a pass, and whether it was replayed: the next replay then overwrites it."""
        recording = self._recording(asked) if self._active else None
        if recording is None:
            return asked.launch(), False
        self.replays[asked.name] = self.replays.get(asked.name, 0) + 1
        outcome: T = recording(asked.tensors)
        return outcome, True

    def _forget(self) -> None:
        self._recordings.clear()

    def _recording(self, asked: Pass[T]) -> _Recording | None:
        """Look a pass up, and capture it when it comes again; None where it is to be run."""
        found = asked.obstacle or self._look_up(asked)
        if isinstance(found, str):
            self.refuse(asked.name, found)
            return None
        return found

    def _look_up(self, asked: Pass[T]) -> _Recording | str | None:
        """Find the recording, or why there is none; None where the pass comes for the first time."""
        key = asked.name, asked.key, tuple((each.shape, each.dtype) for each in asked.tensors)
        try:
            number = hash(key)
        except TypeError:  # a pruner of one's own may hold a list
            return "an option cannot be hashed"
        if key in self._recordings:
            return self._recordings[key]
        if number not in self._seen:
            if len(self._seen) == SEEN:
                self._seen.clear()
            self._seen.add(number)
            return None
        if len(self._recordings) == KEPT:
            return CROWDED
        recording = self._record(asked)  # may forget all others
        self._recordings[key] = recording
        return recording

    def _record(self, asked: Pass[T]) -> _Recording | str:
        """Capture a pass; the reason where that fails, or the replay is not what was captured."""
        try:
            return self._captured(asked)
        except torch.OutOfMemoryError:  # says nothing of the pass: whoever asks gives memory back, and asks again
            raise
        except RuntimeError as e:
            return str(e).splitlines()[0]

    def _captured(self, asked: Pass[T]) -> _Recording:
        assert self.capture is not None, "only then a pass is looked up"
        inputs = [each.clone(memory_format=torch.contiguous_format) for each in asked.tensors]
        copies, outcomes = KeptCopies(), list[T]()
        with copies.recorded():
            run = asked.launch()
        place = asked.place(run)

        def repeat() -> None:
            outcomes.clear()
            with copies.repeated():
                outcomes.append(asked.again(inputs, place))

        replay = self.capture(repeat)
        replay()
        (outcome,) = outcomes
        if (far := _difference(run.tensors, outcome.tensors)) is not None:
            raise RuntimeError(f"a replay gave other numbers than the run that was captured ({far})")
        return _Recording(inputs, outcome, replay, copies)


def named(kind: str, pruner: str | None) -> str:
    """Name a pass; `pruner` = whose cuts are inside, None without any."""
    return kind if pruner is None else f"{kind} with {pruner}"


def _difference(run: Sequence[Tensor], replayed: Sequence[Tensor]) -> str | None:
    """Say how far tensors are from others; None where they are equal bit by bit."""
    for one, other in zip(run, replayed, strict=True):
        if one.shape != other.shape:
            return f"shape {tuple(other.shape)} for {tuple(one.shape)}"
        if not torch.equal(one.nan_to_num(), other.nan_to_num()):
            far = (one.double() - other.double()).abs().nan_to_num().max()
            return f"up to {float(far):.3g} apart"
    return None


def cuda_graphs(device: torch.device) -> Capture:
    """Give the way to capture on a GPU, all graphs that there are at a time in one pool of memory."""
    there: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
    pool = torch.cuda.graph_pool_handle()

    def capture(run: Callable[[], None]) -> Callable[[], None]:
        nonlocal pool
        if not there:  # torch refuses one that all of its graphs have left, as long as anything else lies in it
            pool = torch.cuda.graph_pool_handle()
        beside, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        beside.wait_stream(current)
        with torch.cuda.stream(beside):  # kernels that choose themselves at their first call do so outside the graph
            run()
        current.wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):  # pictures are read in another thread
            run()
        there.add(graph)
        replay: Callable[[], None] = graph.replay
        return replay

    return capture
