"""The pass of the language model over the prompts of a batch, with the cuts inside, run or replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vtpbench.harness.pruning.batch import ImageTokens, PromptBatch
from vtpbench.harness.pruning.captured_passes import WATCHED, Pass, SharedMemory, named
from vtpbench.harness.pruning.decoder_hooks import DecoderPruning, Stopped, layer_hooks
from vtpbench.harness.pruning.schedule import Schedule, ignore_selection

if TYPE_CHECKING:
    from torch import Tensor

    from vtpbench.harness.pruning.model import VisionLanguageModel

LARGEST = 2048
"""Columns of all prompts up to which a prefill is captured: a GPU works as long on more as a host needs to launch them."""


@dataclass(frozen=True)
class Prefill:
    """A prefill, done.

    Attributes
    ----------
    logits : (rows, vocabulary) float32 of the last column; None where nobody asked
    cache : transformers' `Cache`
    pruning : what the cuts left
    states : (rows, columns, dim) what entered the last of the layers that were run, and what came out of it; where it was stopped

    """

    logits: Tensor | None
    cache: Any
    pruning: DecoderPruning
    states: tuple[Tensor, ...] = ()

    @property
    def tensors(self) -> Sequence[Tensor]:
        """Logits, keys and values, the places of what stays, and whether a choice inside was wrong."""
        cached = [tensor for layer in self.cache.layers for tensor in (layer.keys, layer.values)]
        kept = [places for image in self.pruning.trace.kept.values() for places in image.values()]
        return [*([] if self.logits is None else [self.logits]), *self.states, *cached, *kept, *self.pruning.invalid_flags]


def prefill(
    model: VisionLanguageModel,
    batch: PromptBatch,
    new_cache: Callable[[], Any],
    *,
    prefix: bool = False,
    layers: int | None = None,
) -> Prefill:
    """Run or replay the pass over the prompts of a batch.

    What it gives is valid until the next prefill; what a trace holds stays.

    Parameters
    ----------
    model : that is asked
    batch : prompts, or what they begin with
    new_cache : makes a cache of the layers that are run, into which a pass writes that is not replayed
    prefix : whether it is what they begin with: the last column is not taken to the vocabulary
    layers : of a prefix, so many layers are run, in which nothing leaves; None = all

    """
    from vtpbench.harness.pruning.key_value_cache import holding, within  # imports transformers

    def launch(batch: PromptBatch, cache: Any) -> Prefill:
        return _launch(model, batch, cache, prefix, layers)

    passes = model.captured_passes
    rows, columns, _ = batch.embeds.shape
    if not passes.worth(rows * columns, LARGEST):
        return launch(batch, new_cache())
    done, replayed = passes.run(
        Pass(
            name=_name(batch),
            key=(_key(batch), tuple(len(levels) for levels in batch.added), prefix, layers),
            tensors=_tensors(batch),
            launch=lambda: launch(batch, new_cache()),
            again=lambda inputs, buffers: launch(_on(inputs, batch), within(buffers)),
            place=lambda done: _take_buffers(passes.memory, done),
            obstacle=_obstacle(batch),
        )
    )
    if not replayed:
        return done
    cache = holding([(layer.keys, layer.values) for layer in done.cache.layers])
    return Prefill(done.logits, cache, done.pruning.of(batch), done.states)


def _launch(model: VisionLanguageModel, batch: PromptBatch, cache: Any, prefix: bool, layers: int | None) -> Prefill:
    from vtpbench.harness.pruning.key_value_cache import begin_with  # imports transformers

    pruning = DecoderPruning(model.decoder, batch, until=layers)
    if batch.system is not None:
        begin_with(cache, batch.system.cached, len(batch.embeds))
    valid = batch.valid
    mask = None if valid is None else valid.long()
    with layer_hooks(model.decoder, lambda: pruning):
        try:
            states = model.last_states(batch.embeds, batch.positions, mask, cache)
        except Stopped as stopped:
            return Prefill(None, cache, pruning, stopped.states)
        return Prefill(None if prefix else model.logits(states), cache, pruning)


def _take_buffers(memory: SharedMemory, done: Prefill) -> list[tuple[Tensor, Tensor]]:
    """Take buffers for the keys and values of each layer."""
    sizes = [tuple(each.shape) for layer in done.cache.layers for each in (layer.keys, layer.values)]
    parts = memory.take(*sizes)
    return list(zip(parts[::2], parts[1::2], strict=True))


def _tensors(batch: PromptBatch) -> list[Tensor]:
    """List what a prefill depends on; keep the order of `_on`."""
    return [batch.embeds, batch.positions, *(image.index for image in batch.images), *batch.added]


def _on(inputs: Sequence[Tensor], batch: PromptBatch) -> PromptBatch:
    """Make a batch of the same layout on other tensors, which knows nothing else of the prompts."""
    embeds, positions, *others = inputs
    count = len(batch.images)
    pairs = zip(batch.images, others[:count], strict=True)
    images = tuple(
        replace(image, features=embeds[0, :0], index=index, invalid=None, schedule=_alone(image)) for image, index in pairs
    )
    return replace(batch, embeds=embeds, positions=positions, images=images, added=tuple(others[count:]), named=False)


def _name(batch: PromptBatch) -> str:
    return named("prefill", next((image.schedule.name for image in batch.images if image.later_cuts), None))


def _key(batch: PromptBatch) -> object:
    """Say by what the host decides; where nothing leaves inside, it is not asked who chose what is left."""
    return batch.layout.rows, batch.system, tuple(_plan(image) for image in batch.images)


def _plan(image: ImageTokens) -> object:
    return (_alone(image), image.grid) if image.later_cuts else None


def _alone(image: ImageTokens) -> Schedule:
    """Give the plan without what it shares with other rows: that has been chosen, and would be held by a graph."""
    return replace(image.schedule, shared=None)


def _obstacle(batch: PromptBatch) -> str:
    watched = any(image.schedule.observer is not ignore_selection for image in batch.images if image.later_cuts)
    return WATCHED if watched else ""
