"""Steps with fixed addresses, kept by their shape and replayed as CUDA graphs where a shape comes again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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

    All shapes lie in the same memory, as only one batch is decoded at a time, and the pass over its prompts writes there too:
    keys and values of a batch are there once. Whether a step is replayed or run changes no number, so that no answer depends on
    what was asked before; a graph whose first replay differs from the run is not used.

    Attributes
    ----------
    refused : why nothing is captured any more, or None

    """

    def __init__(self, model: VisionLanguageModel, capture: Capture | None) -> None:
        self.model, self.capture = model, capture
        self.refused: str | None = None if capture is not None else "the device has no graphs"
        self._known: dict[StepShape, _Known] = {}
        layers = range(model.shape.decoder_layers)
        self._memory = [SharedMemory(model.device, model.model.dtype, self._known.clear) for _ in layers]

    @property
    def captured(self) -> int:
        """Count the shapes that are replayed."""
        return sum(known.replay is not None for known in self._known.values())

    @property
    def holds_memory(self) -> bool:
        """Whether there are buffers."""
        return any(map(len, self._memory))

    def new_cache(self) -> Any:
        """Make an empty cache in the memory of the steps, in which the cache before it is lost."""
        from vtpbench.harness.pruning.key_value_cache import allocated  # imports transformers

        return allocated([partial(self._take_buffers, layer) for layer in range(len(self._memory))])

    def open(self, stages: Sequence[CachedStage], cache: Any, tables: Callable[[StaticStep], None]) -> _Known:
        """Give the step for a batch, behind what `cache` holds, and in its buffers; `tables` is told of it before it runs."""
        buffers = []
        for number, layer in enumerate(cache.layers):
            buffers.append(self._take_buffers(number, layer.keys, layer.values, layer.get_seq_length()))
            layer.move(buffers[-1])
        shape = StepShape(len(stages[0].valid), tuple((stage.at, _columns(stage.valid.shape[1])) for stage in stages))
        known = self._known.get(shape) or self._add(shape, stages[0].next, buffers)
        known.uses += 1
        tables(known.step)
        known.step.load(stages)
        if known.replay is None and known.uses > 1 and self.refused is None:
            known.replay = self._captured(known.step, stages)
            known.step.load(stages)
        return known

    def _take_buffers(self, layer: int, keys: Tensor, values: Tensor, columns: int) -> tuple[Tensor, ...]:
        """Give the buffers of a layer; larger ones take new memory, and the steps in the old are forgotten."""
        of_keys, of_values = ((*each.shape[:2], _columns(columns), each.shape[3]) for each in (keys, values))
        return self._memory[layer].take(of_keys, of_values)

    def _add(self, shape: StepShape, positions: Tensor, buffers: Sequence[tuple[Tensor, ...]]) -> _Known:
        """Make a step in buffers that all share."""
        if len(self._known) == KEPT:
            self._known.clear()
        known = self._known[shape] = _Known(StaticStep(self.model, shape, positions, buffers))
        return known

    def _captured(self, step: StaticStep, stages: Sequence[CachedStage]) -> Callable[[], None] | None:
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
        step.load(stages)
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
            for layer in self.start.cache.layers:
                layer.extend(self.used)
            self.known = None  # lets go of buffers before longer ones are taken
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
