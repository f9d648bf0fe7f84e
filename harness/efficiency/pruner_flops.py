"""Operations of a pruner, counted while it runs: the same for every pruner, also for those of plugins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from PIL.Image import Image
from torch import Size, Tensor
from torch.utils.flop_counter import FlopCounterMode

from vtpbench.harness.models.family import Family
from vtpbench.harness.pruning.batch import PromptBatch
from vtpbench.harness.pruning.decoder_hooks import ForwardTrace, decoder_hooks
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.pruners.base import Cut, Grid, ModelShape, Pruner, TokenView

T = TypeVar("T")
_ATTENTION_KERNELS = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_efficient_attention,
    torch.ops.aten._scaled_dot_product_cudnn_attention,
)
"""What SDPA becomes: torch 2.11 leaves the first out, and refuses the others where heads of keys and values are shared."""


def _attention(query: Size, key: Size, value: Size, *_: object, **__: object) -> int:
    """Count attention, heads of keys and values shared or not."""
    return 2 * query[:-1].numel() * key[-2] * (query[-1] + value[-1])


@dataclass(frozen=True)
class Leading(Pruner):
    """Keep the first tokens: makes the cuts of another pruner without any cost of its own."""

    of: Pruner = field(default_factory=Pruner)

    def target_grid(self, budget: int, grid: Grid, shape: ModelShape) -> tuple[int, int] | None:
        """Shrink images as the other pruner does."""
        return self.of.target_grid(budget, grid, shape)

    def tower_cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut inside the tower where it does."""
        return self.of.tower_cuts(budget, n, shape)

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut where, and as far as, the other pruner does."""
        return self.of.cuts(budget, n, shape)

    def select(self, view: TokenView) -> Tensor:
        """Take the first tokens that are due, `(images, keep)`."""
        return torch.arange(view.cut.keep, device=view.features.device).expand(len(view.features), -1)


@dataclass(frozen=True)
class PrunerFlops:
    """Operations of a pruner on one prompt with one image.

    Attributes
    ----------
    evidence : collecting what it wants to see of the vision tower, and choosing inside the tower
    choice : choosing, and merging, before the language model, less what it spares the projector
    decoder : both for its cuts inside the language model
    trace : tokens that entered each layer

    """

    evidence: int
    choice: int
    decoder: int
    trace: ForwardTrace

    @property
    def total(self) -> int:
        """Operations in the tower, before and inside the language model together."""
        return self.evidence + self.choice + self.decoder


def counted(run: Callable[[], T]) -> tuple[T, int]:
    """Run something under torch's counter: matrix products, convolutions and attention, two for a multiply-add."""
    with (
        torch.inference_mode(),
        FlopCounterMode(display=False, custom_mapping=dict.fromkeys(_ATTENTION_KERNELS, _attention)) as counter,
    ):
        result = run()
    return result, counter.get_total_flops()


def prefill(family: Family, batch: PromptBatch) -> ForwardTrace:
    """Run the language model over a batch as it does before the first generated token."""
    mask = batch.layout.valid(family.device).long()
    with torch.inference_mode(), decoder_hooks(family.decoder, batch) as trace:
        family.model(
            inputs_embeds=batch.embeds, position_ids=batch.positions, attention_mask=mask, use_cache=True, logits_to_keep=1
        )
    return trace


def measure(family: Family, pruner: Pruner, budget: int | None, image: Image, question: str) -> PrunerFlops:
    """Count what a pruner adds: each stage runs with it and without it, on the same tokens.

    Element-wise work (norms, sorting, comparing) is not counted, as it is not for the model. The counter does not see
    into the external `flash_attn` package; both runs of a stage miss the same there.
    """
    alone = Leading(pruner)
    with_pruner, without = (Pipeline(family, each, lambda n: budget) for each in (pruner, alone))
    encoded, tower_with = counted(lambda: with_pruner.encode([image]))
    plain, tower_without = counted(lambda: without.encode([image]))
    left, choice = counted(lambda: with_pruner.select(encoded, ["0"], [question]))
    batch, assembly_with = counted(lambda: with_pruner.assemble([question], [[left[0]]]))
    rows = plain[0].features.new_zeros(len(left[0].features), plain[0].features.shape[-1])  # as many, for the projector
    to_project = replace(left[0], features=rows if left[0].projected else left[0].features, projected=False)
    _, assembly_without = counted(lambda: without.assemble([question], [[to_project]]))
    trace, decoder_with = counted(lambda: prefill(family, batch))
    _, decoder_without = counted(lambda: prefill(family, _by(alone, batch)))
    return PrunerFlops(
        tower_with - tower_without, choice + assembly_with - assembly_without, decoder_with - decoder_without, trace
    )


def _by(pruner: Pruner, batch: PromptBatch) -> PromptBatch:
    """Let another pruner, which needs no evidence, make the cuts that a batch has planned."""
    images = (replace(each, schedule=replace(each.schedule, pruner=pruner, needs=frozenset())) for each in batch.images)
    return replace(batch, images=tuple(images))
