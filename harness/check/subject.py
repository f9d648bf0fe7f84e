"""One pruner on one tiny model: what the properties run, and what they see of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import numpy as np
import torch
from PIL import Image as Pillow
from PIL.Image import Image
from torch import Tensor

from vtpbench.harness.models.family import Family
from vtpbench.harness.pruning.batch import ImageTokens, PromptBatch
from vtpbench.harness.pruning.decoder_hooks import ForwardTrace
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.harness.pruning.schedule import RecordedSelection, SelectionObserver, ignore_selection
from vtpbench.pruners.base import Pruner, Selection, TokenView
from vtpbench.pruners.vanilla import Vanilla

STEPS = 3
"""Tokens that each answer has: one of the prefill, two of decoding."""
TOLERANCE = 1e-4
"""Of logits in float32, relative to the largest."""
HALF, QUARTER, ALL = 0.5, 0.25, 1.0
"""Budgets, as shares of an image's tokens."""


class ModelBuilder(Protocol):
    """Builds a tiny random model, the same for the same arguments."""

    def __call__(self, *, attention: str, dtype: torch.dtype) -> Family:
        """Build the model with an attention kernel and a number format."""
        ...


@dataclass(frozen=True)
class ProbeRun:
    """Questions that were answered together.

    Attributes
    ----------
    pruner, batch, trace : of the run
    rows : names of the questions, in the order of the batch
    images : what was left of every image at depth 0, by key, those without a token included
    choices : all that the pruner was asked for, in order
    logits : (steps, rows, vocabulary) float32

    """

    pruner: Pruner
    batch: PromptBatch
    trace: ForwardTrace
    rows: tuple[str, ...]
    images: Mapping[str, ImageTokens]
    choices: tuple[RecordedSelection, ...]
    logits: Tensor

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number in the batch of each image that has a token left."""
        return {image.key: number for number, image in enumerate(self.batch.images)}

    def per_layer(self, key: str) -> list[int]:
        """Vision tokens of an image that entered each decoder layer."""
        layers = len(next(iter(self.trace.per_layer.values()), []))
        return self.trace.per_layer[self.numbers[key]] if key in self.numbers else [0] * layers

    def kept(self, question: str) -> dict[tuple[str, int], list[int]]:
        """Original places of what stayed of a question's images, by image and cut."""
        own = {key: number for key, number in self.numbers.items() if key.partition(":")[0] == question}
        return {(key, at): places.tolist() for key, number in own.items() for at, places in self.trace.kept[number].items()}


@dataclass(frozen=True)
class PrunerOnModel:
    """A pruner, one object for all runs as in a cell, and the model of a family."""

    pruner: Pruner
    build: ModelBuilder

    @cached_property
    def questions(self) -> tuple[Prompt, ...]:
        """Prompts of unequal length with one image, two, and none; pictures of several shapes."""
        random = np.random.default_rng(0)

        def picture(width: int, height: int) -> Image:
            return Pillow.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))

        return (
            Prompt("short", "What?", (picture(64, 48),)),
            Prompt("long", "What is to the left of the thing in the middle?", (picture(48, 64),)),
            Prompt("two", "Which differ?", (picture(56, 56), picture(64, 48))),
            Prompt("none", "Is there an image?", ()),
        )

    @cached_property
    def base(self) -> ProbeRun:
        """All questions at half of the tokens."""
        return self.run()

    @cached_property
    def quarter(self) -> ProbeRun:
        """All questions at a quarter of the tokens; raises `Infeasible` where the pruner needs more."""
        return self.run(share=QUARTER)

    def run(
        self,
        questions: Sequence[Prompt] | None = None,
        share: float = HALF,
        *,
        attention: str = "sdpa",
        dtype: torch.dtype = torch.float32,
        pruner: Pruner | None = None,
        images_per_pass: int = Family.images_per_pass,
        observer: SelectionObserver = ignore_selection,
    ) -> ProbeRun:
        """Answer questions (by default all) in one batch; `pruner` stands in for the subject's own.

        `observer` is told of every selection, before it is recorded.
        """
        family, asked = self.build(attention=attention, dtype=dtype), questions or self.questions
        choices: list[RecordedSelection] = []
        own = pruner or self.pruner

        def record(view: TokenView, selection: Selection) -> None:
            observer(view, selection)
            choices.append(RecordedSelection(view, selection))

        pipeline = Pipeline(family, own, partial(budget_of, share), record)
        logits: list[Tensor] = []
        head = family.model.get_output_embeddings()
        listener = head.register_forward_hook(lambda module, args, output: logits.append(output[:, -1].float()))
        try:
            with _passes_of(images_per_pass, family):
                found = pipeline.run(asked, STEPS)
        finally:
            listener.remove()
        images = {image.key: image for row in found.images for image in row}
        return ProbeRun(
            own, found.batch, found.trace, tuple(prompt.key for prompt in asked), images, tuple(choices), torch.stack(logits)
        )

    def vanilla(self, questions: Sequence[Prompt] | None = None) -> ProbeRun:
        """Answer with all tokens."""
        return self.run(questions, ALL, pruner=Vanilla())


def budget_of(share: float, n: int) -> int:
    """Tokens that a share of `n` means, at least one."""
    return max(1, round(share * n))


def difference(one: ProbeRun, other: ProbeRun, names: Sequence[str], tolerance: float = TOLERANCE) -> str | None:
    """First difference between two runs in what some questions keep and answer; None where there is none."""
    for name in names:
        kept, others = one.kept(name), other.kept(name)
        for key, at in kept.keys() | others.keys():
            if kept.get((key, at)) != others.get((key, at)):
                return f"other tokens of image {key} stay at layer {at}: {kept.get((key, at))}, {others.get((key, at))}"
        logits, expected = one.logits[:, one.rows.index(name)], other.logits[:, other.rows.index(name)]
        steps = min(len(logits), len(expected))  # alone, an answer may end before its neighbours do
        gap = (logits[:steps] - expected[:steps]).abs().max().item()
        if not gap <= tolerance * max(1.0, expected.abs().max().item()):  # also where it is not a number
            return f"logits of question '{name}' differ by {gap:.2g}"
    return None


@contextmanager
def _passes_of(pictures: int, family: Family) -> Iterator[None]:
    """Let no more pictures through the vision tower together; the model is shared with other runs."""
    before = family.images_per_pass
    family.images_per_pass = pictures
    try:
        yield
    finally:
        family.images_per_pass = before
