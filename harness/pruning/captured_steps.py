"""Steps with fixed addresses, kept by their shape and replayed as CUDA graphs where a shape comes again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vtpbench.harness.pruning.captured_passes import Capture, SharedMemory
from vtpbench.harness.pruning.static_step import CachedStage, StaticStep, StepShape
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from vtpbench.harness.pruning.decoding import DecoderInput
    from vtpbench.harness.pruning.model import VisionLanguageModel

COLUMNS, ROOM = 64, 32
"""Buffers are a multiple of so many columns long, and have room for at least so many tokens."""
KEPT = 64
"""Shapes that are remembered at once: each graph holds its masks and its logits."""


@dataclass
class _Known:
    """A step of a shape that has come `uses` times; `replay` is None until it is captured."""

    step: StaticStep
    uses: int = 0
    replay: Callable[[], None] | None = None


class CapturedSteps:
    """Steps of one model.

    All shapes lie in the same memory, as only one batch is decoded at a time. Whether a step is replayed or run changes no
    number, so that no answer depends on what was asked before; a graph whose first replay differs from the run is not used.

    Attributes
    ----------
    refused : why nothing is captured any more, or None

    """

    def __init__(self, model: VisionLanguageModel, capture: Capture | None) -> None:
        self.model, self.capture = model, capture
        self.refused: str | None = None if capture is not None else "the device has no graphs"
        self._known: dict[StepShape, _Known] = {}
        self._memory = SharedMemory(model.device, model.model.dtype, self._known.clear)

    @property
    def captured(self) -> int:
        """Count the shapes that are replayed."""
        return sum(known.replay is not None for known in self._known.values())

    def open(self, stages: Sequence[CachedStage], cache: Any, tables: Callable[[StaticStep], None]) -> _Known:
        """Give the step for a batch, loaded with what `cache` holds; `tables` is told of it before it runs."""
        shape = StepShape(len(stages[0].valid), tuple((stage.at, _columns(stage.valid.shape[1])) for stage in stages))
        known = self._known.get(shape) or self._add(shape, stages[0].next, cache)
        known.uses += 1
        tables(known.step)
        known.step.load(stages, cache)
        if known.replay is None and known.uses > 1 and self.refused is None:
            known.replay = self._captured(known.step, stages, cache)
            known.step.load(stages, cache)
        return known

    def _add(self, shape: StepShape, positions: Tensor, cache: Any) -> _Known:
        """Make a step in the memory that all share; a larger one takes new memory, and the steps in the old are forgotten."""
        sizes = [
            (shape.rows, layer.keys.shape[1], shape.stages[shape.stage_of(number)][1], layer.keys.shape[3])
            for number, layer in enumerate(cache.layers)
        ]
        parts = iter(self._memory.take([size for size in sizes for _ in range(2)]))
        if len(self._known) == KEPT:
            self._known.clear()
        buffers = [(next(parts), next(parts)) for _ in sizes]
        known = self._known[shape] = _Known(StaticStep(self.model, shape, positions, buffers))
        return known

    def _captured(self, step: StaticStep, stages: Sequence[CachedStage], cache: Any) -> Callable[[], None] | None:
        """Capture a step; None, and no further attempt, where that fails or the replay is not what was captured."""
        assert self.capture is not None
        step.run()
        run = step.logits.clone()
        try:
            replay = self.capture(step.run)
        except torch.OutOfMemoryError:  # says nothing of steps: whoever asks gives memory back, and asks again
            raise
        except RuntimeError as e:
            self.refused = str(e).splitlines()[0]
            return None
        step.load(stages, cache)
        replay()
        if torch.equal(run.nan_to_num(), step.logits.nan_to_num()):
            return replay
        self.refused = "a replay gave other logits than the run that was captured"
        return None


class StaticDecoding:
    """The steps of one batch; see `EagerDecoding`, whose place it takes."""

    def __init__(self, steps: CapturedSteps, start: DecoderInput) -> None:
        self.steps, self.start = steps, start
        self.known: _Known | None = None
        self.used = self.room = 0

    def logits(self, token: Tensor, written: int) -> Tensor:
        """Take the last of `written` tokens, `(rows,)`, to logits, `(rows, vocabulary)` float32."""
        if self.used == self.room:
            self._open(written)
        assert self.known is not None, "opened for the first token"
        self.used += 1
        step = self.known.step
        step.token.copy_(token)
        (self.known.replay or step.run)()
        return step.logits

    def _open(self, written: int) -> None:
        """Go on in longer buffers."""
        if self.known is not None:
            self.known.step.give_back(self.start.cache, self.used)
        stages = self.start.stages(written - 1)
        self.used, self.room = 0, min(_columns(n) - n for n in (stage.valid.shape[1] for stage in stages))
        self.known = self.steps.open(stages, self.start.cache, self._show)

    def _show(self, step: StaticStep) -> None:
        """Let the hooks of the batch give its layers what the step has made for them."""
        if self.start.pruning is not None:
            self.start.pruning.static_tables = step.tables


def _columns(cached: int) -> int:
    """Columns of a buffer for so many that are cached."""
    return -(-(cached + ROOM) // COLUMNS) * COLUMNS
