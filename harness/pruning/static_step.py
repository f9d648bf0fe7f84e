"""One decoding step whose shapes and addresses stay the same from token to token and from batch to batch.

Such a step can be captured once as a CUDA graph and replayed: a GPU then does in 7 to 24 ms what the host needs 60 ms to launch.
Keys and values lie in buffers of fixed length; masks hide what is not written yet; positions and the column that is written next
are on the device and advance there. Whether it is replayed or run, a step launches the same kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vtpbench.harness.pruning.sequence import seen_mask
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from vtpbench.harness.pruning.model import VisionLanguageModel


@dataclass(frozen=True)
class CachedStage:
    """What the layers from `at` on have cached when a step begins.

    Attributes
    ----------
    at : first layer
    valid : (rows, columns) bool, which columns hold a token
    next : (rows, 1) or (axes, rows, 1), position of the next token

    """

    at: int
    valid: Tensor
    next: Tensor


@dataclass(frozen=True)
class StepShape:
    """What batches share that can use one step: their rows, and `(first layer, columns of the buffers)` by stage."""

    rows: int
    stages: tuple[tuple[int, int], ...]

    def stage_of(self, layer: int) -> int:
        """Give the number of the stage that a layer belongs to."""
        return max(n for n, (at, _) in enumerate(self.stages) if at <= layer)


class StaticStep:
    """A step for batches of one shape.

    Attributes
    ----------
    token : (rows,) int64, enters the step
    logits : (rows, vocabulary) float32, leaves it
    tables : what layers get behind a cut, by the first layer of their stage

    """

    def __init__(self, model: VisionLanguageModel, shape: StepShape, like: Tensor, buffers: Sequence[tuple[Tensor, ...]]) -> None:
        """Take buffers for keys and values, one pair for each layer; positions are laid out as in `like`."""
        from vtpbench.harness.pruning.key_value_cache import static  # imports transformers

        device, self.model, self.shape = model.device, model, shape
        self.token = torch.zeros(shape.rows, dtype=torch.int64, device=device)
        self.logits = torch.empty(0, device=device)
        self.seen = [torch.zeros(shape.rows, columns, dtype=torch.bool, device=device) for _, columns in shape.stages]
        self.positions = [torch.zeros_like(like) for _ in shape.stages]
        self.column = [torch.zeros(1, dtype=torch.int64, device=device) for _ in shape.stages]
        self.tables: dict[int, dict[str, Any]] = {}
        self.cache = static([(*pair, self.column[shape.stage_of(number)]) for number, pair in enumerate(buffers)])

    def load(self, stages: Sequence[CachedStage]) -> None:
        """Begin behind what a cache in the same buffers holds."""
        for number, stage in enumerate(stages):
            columns = stage.valid.shape[-1]
            self.seen[number].zero_()
            self.seen[number][:, :columns] = stage.valid
            self.positions[number].copy_(stage.next)
            self.column[number].fill_(columns)
        for layer, own in enumerate(self.cache.layers):
            columns = stages[self.shape.stage_of(layer)].valid.shape[-1]
            own.keys[:, :, columns:], own.values[:, :, columns:] = 0, 0  # what is masked must be a number: 0 times NaN is NaN

    def run(self) -> None:
        """Take `token` to `logits`, and move on by a column; nothing here asks the host, or copies from it."""
        decoder: Any = self.model.decoder
        hidden = self.model.model.get_input_embeddings()(self.token[:, None])
        for seen, column in zip(self.seen, self.column, strict=True):
            seen.index_fill_(1, column, value=True)
        for (at, _), positions, seen in zip(self.shape.stages, self.positions, self.seen, strict=True):
            rotary = decoder.rotary_emb(hidden, position_ids=positions)
            self.tables[at] = {
                "position_ids": positions,
                "position_embeddings": rotary,
                "attention_mask": seen_mask(decoder, seen),
            }
        logits = self.model.next_logits(hidden, self.positions[0], self.tables[0]["attention_mask"], self.cache)
        if self.logits.shape == logits.shape:
            self.logits.copy_(logits)
        else:
            self.logits = logits
        for positions, column in zip(self.positions, self.column, strict=True):
            positions += 1
            column += 1
