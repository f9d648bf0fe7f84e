"""Prefill what prompts of a batch begin with, system prompt and image, once for all questions about a picture.

A batch can share where each prompt is text, one image, text, and the text before the image is the same. It does where pictures
come so often that two passes cost less than one over whole prompts. All prefixes end in the same column, however many tokens
are left of each image; what follows them goes through in rows of its own (`question_rows.py`), and is then cached prompt by
prompt: padding, prefix, padding, question. Where tokens leave inside the language model, it is so up to the first cut, before
which prompts are put together (`joined_prompts.py`) as if they had been whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from vtpbench.harness.pruning.batch import PromptBatch
from vtpbench.harness.pruning.decoder_hooks import DecoderPruning, ForwardTrace, layer_hooks
from vtpbench.harness.pruning.decoding import DecoderInput
from vtpbench.harness.pruning.joined_prompts import JoinedPrompts
from vtpbench.harness.pruning.layout import PromptLayout
from vtpbench.harness.pruning.prefill import prefill
from vtpbench.harness.pruning.question_rows import MOST, QuestionRows, side_by_side
from vtpbench.harness.pruning.sequence import seen_by_each
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor

    from vtpbench.harness.pruning.model import VisionLanguageModel

PASS = 512
"""What a pass more costs, in tokens: its launches and the weights that it reads (400 of the embedded model on a processor)."""


@dataclass(frozen=True)
class PrefilledBatch:
    """A batch of which the first token is due.

    Attributes
    ----------
    start : what the decoder has seen
    logits : (rows, vocabulary) float32, of the last column
    trace : what the forward pass showed, in the image numbers of the batch
    pruning : knows whether a selection must be refused, to be asked when the answers are there

    """

    start: DecoderInput
    logits: Tensor
    trace: ForwardTrace
    pruning: DecoderPruning


@dataclass(frozen=True)
class SharedPrefixes:
    """What prompts of a batch begin with, and how they go on.

    Attributes
    ----------
    layout : of the whole prompts
    pictures : number of each prompt's picture among the distinct ones
    most : questions that may stand in a row, see `side_by_side`
    before : columns that are cached before the prompts
    layers : decoder layers that prompts share, before the first in which tokens leave; None = all

    """

    layout: PromptLayout
    pictures: tuple[int, ...]
    most: int
    before: int = 0
    layers: int | None = None

    @cached_property
    def first(self) -> list[int]:
        """Give the first prompt that shows each picture."""
        return [self.pictures.index(n) for n in range(max(self.pictures) + 1)]

    @cached_property
    def prefixes(self) -> PromptLayout:
        """Lay out system prompt and picture, one row for each picture."""
        rows = (self.layout.rows[row] for row in self.first)
        return PromptLayout(tuple((*before, replace(image, image=n)) for n, (*before, image, _) in enumerate(rows)))

    @cached_property
    def questions(self) -> QuestionRows:
        """Lay out what follows."""
        lengths = zip(self.layout.lengths, self.pictures, strict=True)
        behind = tuple(length - self.prefixes.lengths[picture] for length, picture in lengths)
        return side_by_side(self.pictures, behind, self.prefixes.lengths, self.most, self.before)

    @property
    def cost(self) -> float:
        """What the two passes cost beside one over whole prompts, in tokens."""
        return PASS + len(self.first) * self.prefixes.width + self.questions.cost


def distinct_prefixes(batch: PromptBatch) -> SharedPrefixes | None:
    """Find what prompts share; None where a batch cannot, or is cheaper prefilled whole."""
    rows, images = batch.layout.rows, batch.images
    if len(images) != len(rows):
        return None
    if any([span.image for span in row] not in ([n, None], [None, n, None]) for n, row in enumerate(rows)):
        return None
    numbers: dict[int, int] = {}
    pictures = tuple(numbers.setdefault(id(image), len(numbers)) for image in images)
    if len(set(batch.heads)) > 1 or len(numbers) == len(rows):
        return None
    layers = min((cut.at for image in images for cut in image.later_cuts), default=None)
    shared = SharedPrefixes(batch.layout, pictures, MOST if batch.embeds.device.type == "cuda" else 1, batch.before, layers)
    return shared if shared.cost < len(rows) * batch.layout.width else None


@torch.inference_mode()
def prefill_whole(model: VisionLanguageModel, batch: PromptBatch, new_cache: Callable[[], Any]) -> PrefilledBatch:
    """Run the language model over whole prompts; `new_cache` makes a cache of all layers for them."""
    done = prefill(model, batch, new_cache)
    assert done.logits is not None, "asked for"
    start = DecoderInput(batch.embeds, batch.positions, batch.valid, done.cache, done.pruning)
    return PrefilledBatch(start, done.logits, done.pruning.trace, done.pruning)


@torch.inference_mode()
def prefill_prefixes(
    model: VisionLanguageModel, batch: PromptBatch, new_cache: Callable[[], Any], shared: SharedPrefixes
) -> PrefilledBatch:
    """Run the language model over each distinct prefix, and over what follows it in each prompt.

    Where tokens leave inside, prefixes go as far as nothing has left, and prompts come together there. `new_cache` makes a
    cache of all layers for the prompts.
    """
    from vtpbench.harness.pruning.key_value_cache import begin_with, buffered, exact, regroup, repeat  # imports transformers

    rows, device = shared.questions, batch.embeds.device
    cache_of_prefixes = partial(buffered, shared.layers or model.shape.decoder_layers, exact)
    done = prefill(model, _prefixes_of(batch, shared), cache_of_prefixes, prefix=True, layers=shared.layers)
    whose = copy_to_device(torch.tensor(rows.pictures), device)
    cache = new_cache()
    repeat(done.cache, cache, whose, rows.width)
    if shared.layers is None:
        states = _ask(model, batch, rows, cache)
        logits = model.logits(states.flatten(0, 1)[copy_to_device(rows.last(), device)][:, None])
        if not rows.apart:
            regroup(cache.layers, *(copy_to_device(each, device) for each in rows.cached()))
        valid = copy_to_device(rows.valid(), device) if rows.padded else None
        start = DecoderInput(batch.embeds[:, -1:], batch.positions[..., -1:], valid, cache)
        return PrefilledBatch(start, logits, _of_prompts(done.pruning.trace, shared.pictures), done.pruning)
    if batch.system is not None:
        begin_with(cache, batch.system.cached, len(batch.embeds))
    places = (copy_to_device(each, device) for each in rows.prompts())
    joining = JoinedPrompts(shared.layers, [each[whose] for each in done.states], batch.before, *places)
    pruning = DecoderPruning(model.decoder, batch, joining=joining)
    del done, joining  # states of all prompts, which are not needed behind the first cut
    with layer_hooks(model.decoder, lambda: pruning):
        states = _ask(model, batch, rows, cache)
    start = DecoderInput(batch.embeds, batch.positions, batch.valid, cache, pruning)
    return PrefilledBatch(start, model.logits(states[:, -1:]), pruning.trace, pruning)


def _ask(model: VisionLanguageModel, batch: PromptBatch, rows: QuestionRows, cache: Any) -> Tensor:
    """Run the decoder over questions in rows behind their prefixes."""
    device = batch.embeds.device
    tokens = copy_to_device(rows.tokens(batch.layout.width), device)
    if rows.apart:
        mask = copy_to_device(rows.valid(), device).long() if rows.padded else None
    else:
        mask = seen_by_each(model.decoder, rows.seen(device))
    return model.states(batch.embeds.flatten(0, 1)[tokens], batch.positions.flatten(-2)[..., tokens], mask, cache)


def _of_prompts(trace: ForwardTrace, pictures: Sequence[int]) -> ForwardTrace:
    """Tell of each prompt what was seen of its picture."""
    return ForwardTrace(
        per_layer={row: list(trace.per_layer[n]) for row, n in enumerate(pictures)},
        kept={row: dict(trace.kept[n]) for row, n in enumerate(pictures)},
    )


def _prefixes_of(batch: PromptBatch, shared: SharedPrefixes) -> PromptBatch:
    """Take from prompts of a batch what they begin with, left-padded to the longest; padding is any token."""
    whole, layout = batch.layout, shared.prefixes
    columns = torch.zeros(len(layout.rows), layout.width, dtype=torch.int64)
    for n, (row, length) in enumerate(zip(shared.first, layout.lengths, strict=True)):
        start = (row + 1) * whole.width - whole.lengths[row]
        columns[n, layout.width - length :] = torch.arange(start, start + length)
    places = copy_to_device(columns, batch.embeds.device)
    return PromptBatch(
        batch.embeds.flatten(0, 1)[places],
        batch.positions.flatten(-2)[..., places],
        layout,
        tuple(batch.images[row].without_later_cuts() for row in shared.first),
        added=tuple(batch.added[row] for row in shared.first if batch.added),
        system=batch.system,
    )
