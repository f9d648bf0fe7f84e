"""Prefill what prompts of a batch begin with, system prompt and image, once for all questions about a picture.

A batch can share where each prompt is text, one image, text, and the text before the image is the same; where nothing leaves
inside the language model; and where a picture comes more than once. Other batches are prefilled whole. Prompts then lie as
padding, prefix, padding, question, so that all prefixes end in the same column, however many tokens are left of each image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vtpbench.harness.pruning.batch import PromptBatch
from vtpbench.harness.pruning.decoder_hooks import DecoderPruning, ForwardTrace
from vtpbench.harness.pruning.decoding import DecoderInput
from vtpbench.harness.pruning.layout import PromptLayout
from vtpbench.harness.pruning.prefill import prefill
from vtpbench.pruners.base import take
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor

    from vtpbench.harness.pruning.model import VisionLanguageModel


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


def distinct_prefixes(batch: PromptBatch, flash: bool) -> list[int] | None:
    """Give each prompt the number of its picture among the distinct ones; None where the batch cannot share.

    FlashAttention takes no padding in the middle.
    """
    rows, images = batch.layout.rows, batch.images
    if flash or len(images) != len(rows) or any(image.later_cuts for image in images):
        return None
    if any([span.image for span in row] != [None, n, None] for n, row in enumerate(rows)):
        return None
    if len(set(batch.heads)) > 1:
        return None
    numbers: dict[int, int] = {}
    found = [numbers.setdefault(id(image), len(numbers)) for image in images]
    return found if len(numbers) < len(rows) else None


@torch.inference_mode()
def prefill_whole(model: VisionLanguageModel, batch: PromptBatch) -> PrefilledBatch:
    """Run the language model over whole prompts."""
    done = prefill(model, batch)
    assert done.logits is not None, "asked for"
    valid = batch.layout.valid(model.device) if batch.layout.padded else None
    start = DecoderInput(batch.embeds, batch.positions, valid, done.cache, done.pruning)
    return PrefilledBatch(start, done.logits, done.pruning.trace, done.pruning)


@torch.inference_mode()
def prefill_prefixes(model: VisionLanguageModel, batch: PromptBatch, pictures: list[int]) -> PrefilledBatch:
    """Run the language model over each distinct prefix, and over what follows it in each prompt.

    Parameters
    ----------
    model : whose decoder runs
    batch : that can share
    pictures : number of each prompt's picture among the distinct ones

    """
    from vtpbench.harness.pruning.key_value_cache import repeated  # imports transformers

    layout, device = batch.layout, batch.embeds.device
    order = _prefix_first(layout)
    columns, valid = (copy_to_device(each, device) for each in (order.columns, order.valid))
    embeds, positions, prefix = take(batch.embeds, columns), _columns_of(batch.positions, columns), order.prefix
    first = [pictures.index(n) for n in range(max(pictures) + 1)]
    own = copy_to_device(torch.tensor(first), device)
    rows = tuple((layout.rows[r][0], replace(layout.rows[r][1], image=n)) for n, r in enumerate(first))
    prefixes = PromptBatch(
        embeds[own, :prefix],
        positions[..., own, :prefix],
        PromptLayout(rows),
        tuple(batch.images[r] for r in first),
        added=tuple(batch.added[r] for r in first if batch.added),
    )
    done = prefill(model, prefixes, logits=False)
    trace = done.pruning.trace
    whole = ForwardTrace(
        per_layer={row: list(trace.per_layer[n]) for row, n in enumerate(pictures)},
        kept={row: dict(trace.kept[n]) for row, n in enumerate(pictures)},
    )
    start = DecoderInput(
        embeds[:, prefix:],
        positions[..., prefix:],
        None if order.valid.all() else valid,
        repeated(done.cache, copy_to_device(torch.tensor(pictures), device)),
    )
    mask = None if start.valid is None else start.valid.long()
    logits = model.next_logits(start.embeds, start.positions, mask, start.cache)
    return PrefilledBatch(start, logits, whole, done.pruning)


@dataclass(frozen=True)
class _PrefixFirst:
    """Left-padded prompts as padding, prefix, padding, question.

    Attributes
    ----------
    prefix : columns of the longest prefix
    columns : (rows, width) int64, the column of the prompts that comes there; for padding the first
    valid : (rows, width) bool, which hold a token

    """

    prefix: int
    columns: Tensor
    valid: Tensor


def _prefix_first(layout: PromptLayout) -> _PrefixFirst:
    """Put prompts into that order, on the host."""
    before = [row[0].length + row[1].length for row in layout.rows]
    behind = [length - own for length, own in zip(layout.lengths, before, strict=True)]
    prefix, width = max(before), max(before) + max(behind)
    columns, valid = torch.zeros(len(before), width, dtype=torch.int64), torch.zeros(len(before), width, dtype=torch.bool)
    for r, (length, own, rest) in enumerate(zip(layout.lengths, before, behind, strict=True)):
        padding = layout.width - length
        columns[r, prefix - own : prefix] = torch.arange(padding, padding + own)
        columns[r, width - rest :] = torch.arange(padding + own, layout.width)
        valid[r, prefix - own : prefix] = valid[r, width - rest :] = True
    return _PrefixFirst(prefix, columns, valid)


def _columns_of(positions: Tensor, columns: Tensor) -> Tensor:
    """Take columns of position ids, `(rows, width)` or `(axes, rows, width)`."""
    return positions.gather(-1, columns.expand(*positions.shape[:-1], -1))
