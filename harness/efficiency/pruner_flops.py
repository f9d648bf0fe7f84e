"""Operations of a pruner, counted while it runs: the same for every pruner, also for those of plugins."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from PIL.Image import Image
from torch import Size, Tensor
from torch.utils.flop_counter import FlopCounterMode

from vtpbench.harness.models.family import Family
from vtpbench.harness.pruning.batch import PromptBatch, VisionTokens
from vtpbench.harness.pruning.decoder_hooks import DecoderPruning, ForwardTrace, layer_hooks
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.pruners.base import DECODER_KINDS, Cut, Grid, ModelShape, Pruner, TokenView

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
    per_layer : vision tokens that entered each decoder layer
    tokens : what the tower made of the image
    text : text tokens of the prompt

    """

    evidence: int
    choice: int
    decoder: int
    per_layer: tuple[int, ...]
    tokens: VisionTokens
    text: int

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
    """Run the language model over a batch of one prompt, which has no padding, as it does before the first token.

    Whether what a pruner chose is valid is not asked: the answer is a value, which a model without any cannot give.
    """
    state = DecoderPruning(family.decoder, batch)
    with torch.inference_mode(), layer_hooks(family.decoder, lambda: state):
        family.model(inputs_embeds=batch.embeds, position_ids=batch.positions, use_cache=True, logits_to_keep=1)
    return state.trace


class PromptCounter:
    """Counts what pruners add to one prompt; a pass through the tower that several would make alike is made once."""

    def __init__(self, family: Family, image: Image, question: str) -> None:
        self._family, self._question = family, question
        (self._group,) = family.group([image])
        self._passes: dict[Hashable, tuple[VisionTokens, int]] = {}

    @property
    def tokens(self) -> int:
        """Vision tokens of the picture."""
        return self._group.tokens

    def measure(self, pruner: Pruner, budget: int | None) -> PrunerFlops:
        """Count: each stage in which the pruner does anything runs with it and without it, on the same tokens.

        Element-wise work (norms, sorting, comparing) is not counted, as it is not for the model. The counter does not see
        into the external `flash_attn` package; both runs of a stage miss the same there. The values of weights and pictures do
        not matter, so that a model without any will do (`without_weights`), but for pruners whose count depends on them.
        """
        alone = Leading(pruner)
        with_pruner, without = (Pipeline(self._family, each, lambda n: budget) for each in (pruner, alone))
        (tokens, tower_with), (_, tower_without) = self._encoded(with_pruner), self._encoded(without)
        left, choice = counted(lambda: with_pruner.select([tokens], ["0"], [self._question]))
        batch, assembly_with = counted(lambda: with_pruner.assemble([self._question], [[left[0]]]))
        rows = tokens.features.new_zeros(len(left[0].features), tokens.features.shape[-1])  # as many, for the projector
        to_project = replace(left[0], features=rows if left[0].projected else left[0].features, projected=False)
        _, assembly_without = counted(lambda: without.assemble([self._question], [[to_project]]))
        decoder, per_layer = _decoder(self._family, alone, batch)
        text = sum(span.length for span in batch.layout.rows[0] if span.image is None)
        evidence = tower_with - tower_without
        return PrunerFlops(evidence, choice + assembly_with - assembly_without, decoder, per_layer, tokens, text)

    def _encoded(self, pipeline: Pipeline) -> tuple[VisionTokens, int]:
        """Run the tower, unless it has done the same before."""
        schedule = pipeline.schedule(self._group)
        wanted = frozenset(need for need in schedule.needs if need.kind not in DECODER_KINDS)
        inside = (schedule.pruner, schedule.tower_cuts) if schedule.tower_cuts else None
        same = wanted, schedule.target_grid, inside, schedule.skips_tower
        if same not in self._passes:
            (tokens,), flops = counted(lambda: pipeline.encode_groups([self._group]))
            self._passes[same] = tokens, flops
        tokens, flops = self._passes[same]
        return replace(tokens, schedule=schedule), flops


def measure(family: Family, pruner: Pruner, budget: int | None, image: Image, question: str) -> PrunerFlops:
    """Count what one pruner adds to one prompt; see `PromptCounter`."""
    return PromptCounter(family, image, question).measure(pruner, budget)


def _decoder(family: Family, alone: Pruner, batch: PromptBatch) -> tuple[int, tuple[int, ...]]:
    """Count the cuts inside the language model; gives the tokens that entered each layer, too."""
    if not any(image.later_cuts for image in batch.images):
        entered = sum(len(image.index) for image in batch.images)
        return 0, (entered,) * family.shape.decoder_layers
    trace, with_pruner = counted(lambda: prefill(family, batch))
    _, without = counted(lambda: prefill(family, _by(alone, batch)))
    return with_pruner - without, tuple(trace.per_layer[0])


def _by(pruner: Pruner, batch: PromptBatch) -> PromptBatch:
    """Let another pruner, which needs no evidence, make the cuts that a batch has planned."""
    images = (replace(each, schedule=replace(each.schedule, pruner=pruner, needs=frozenset())) for each in batch.images)
    return replace(batch, images=tuple(images))
