"""Answer many questions in batches: group by image, sort by length, halve the batch when the device runs out of memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor

from vtpbench.harness.host.device import is_out_of_memory
from vtpbench.harness.host.images import image_name
from vtpbench.harness.pruning.batch import ImageTokens
from vtpbench.harness.pruning.request import Request
from vtpbench.harness.records.cell import Answer, KeptTokens
from vtpbench.harness.run.pictures import PictureFolder, TokenPlaces

if TYPE_CHECKING:
    from vtpbench.harness.models.family import Family
    from vtpbench.pruners.base import Pruner


T = TypeVar("T")
WINDOW = 4
"""Batches whose images are encoded together."""


@dataclass(frozen=True)
class Question:
    """One question: `images` decodes its pictures, and is called once, when its turn comes."""

    sample: str
    name: str
    """Name over all benchmarks; seeds of stochastic pruners derive from it."""
    text: str
    images: Callable[[], Sequence[Image]]
    max_new_tokens: int
    until: tuple[str, ...] = ()
    pictured: bool = False
    """Whether to note which tokens of its images stay."""


@dataclass(frozen=True)
class PrunedImages:
    """The images of one question: content hashes, the tokens that are left of them and, if asked for, their pictures."""

    names: tuple[str, ...]
    tokens: list[ImageTokens]
    token_places: list[TokenPlaces]


class Answerer:
    """Answers questions with one pruner.

    Attributes
    ----------
    seconds : time spent answering so far
    smallest : the smallest batch that was needed

    """

    def __init__(
        self,
        family: Family,
        pruner: Pruner,
        budget: Callable[[int], int | None],
        batch_size: int,
        picture_folder: PictureFolder | None = None,
    ) -> None:
        self.family, self.pruner, self.budget, self.picture_folder = family, pruner, budget, picture_folder
        self.seconds = 0.0
        self.smallest = self._size = batch_size

    def answer(self, questions: Sequence[Question]) -> Iterator[list[Answer]]:
        """Yield the answers batch by batch; no answer depends on its batch.

        Questions come in windows of a few batches in their own order, in which benchmarks keep the questions on an image
        together: a window encodes each of its images once, then asks the longest questions first.
        """
        waiting = list(questions)
        while waiting:
            window = waiting[: WINDOW * self._size]
            shown = self._retrying(partial(self._show, window))
            if shown is None:
                continue
            waiting = waiting[len(window) :]
            pending = sorted(zip(window, shown, strict=True), key=lambda pair: (-pair[0].max_new_tokens, -len(pair[0].text)))
            while pending:
                batch = [p for p in pending[: self._size] if p[0].max_new_tokens == pending[0][0].max_new_tokens]
                answers = self._retrying(partial(self._batch, [q for q, _ in batch], [s for _, s in batch]))
                if answers is not None:
                    pending = pending[len(batch) :]
                    yield answers

    def _retrying(self, work: Callable[[], T]) -> T | None:
        """Time some work; None, and half the batch size from now on, where the device has too little memory for it."""
        start = time.perf_counter()
        try:
            return work()
        except (torch.OutOfMemoryError, torch.AcceleratorError) as e:
            if self._size == 1 or not is_out_of_memory(e):
                raise
            self._size //= 2
            self.smallest = self._size
        finally:
            self.seconds += time.perf_counter() - start
        torch.cuda.empty_cache()
        return None

    def _batch(self, questions: Sequence[Question], shown: Sequence[PrunedImages]) -> list[Answer]:
        prepared = self.family.assemble([q.text for q in questions], [own.tokens for own in shown])
        texts, trace = self.family.generate(prepared, self.pruner, questions[0].max_new_tokens)
        nothing = [0] * self.family.shape.decoder_layers
        numbers = {id(image): n for n, image in enumerate(prepared.images)}
        answers = []
        for q, text, own in zip(questions, texts, shown, strict=True):
            counts = tuple(tuple(trace.per_layer[numbers[id(i)]] if id(i) in numbers else nothing) for i in own.tokens)
            originals = tuple(i.original for i in own.tokens)
            later = [trace.kept.get(numbers.get(id(i), -1), {}) for i in own.tokens]
            kept = tuple(map(_kept, own.token_places, own.tokens, later))  # none where there are no boards
            answers.append(Answer(q.sample, _until(text, q.until), own.names, originals, counts, kept))
        return answers

    def _show(self, questions: Sequence[Question]) -> list[PrunedImages]:
        """Encode every distinct picture once, then prune it for each question that shows it."""
        pictures = [list(q.images()) for q in questions]
        names = [tuple(image_name(p) for p in own) for own in pictures]
        distinct = {n: p for own in zip(names, pictures, strict=True) for n, p in zip(*own, strict=True)}
        order = {name: n for n, name in enumerate(distinct)}
        entries = [order[name] for own in names for name in own]
        keys = [f"{q.name}:{n}" for q, own in zip(questions, names, strict=True) for n in range(len(own))]
        asked = [q.text for q, own in zip(questions, names, strict=True) for _ in own]
        selected: dict[int, ImageTokens] = {}
        if distinct:
            for group in self.family.encode(list(distinct.values()), Request(self.pruner, self.budget)):
                budget = self.budget(group.original)
                selected.update(self.family.select(group.shown_as(entries), keys, self.pruner, budget, asked))
        rest = iter(selected[n] for n in range(len(entries)))
        tokens = [[next(rest) for _ in own] for own in names]
        return [
            PrunedImages(own, left, self._token_places(own, images, left) if q.pictured else [])
            for q, own, images, left in zip(questions, names, pictures, tokens, strict=True)
        ]

    def _token_places(self, names: Sequence[str], images: Sequence[Image], tokens: Sequence[ImageTokens]) -> list[TokenPlaces]:
        """Put the pictures of a question into the album."""
        assert self.picture_folder is not None, "a question is pictured for an album"
        shown = zip(names, images, tokens, strict=True)
        return [self.picture_folder.add(self.family, name, image, left.grid) for name, image, left in shown]


def _kept(board: TokenPlaces, image: ImageTokens, later: Mapping[int, Tensor]) -> KeptTokens:
    """Note what stays at each cut."""
    cuts = tuple((layer, tuple(left.tolist())) for layer, left in image.kept(later).items())
    return KeptTokens(board.picture, image.original, board.tiles, cuts)


def _until(text: str, stops: Sequence[str]) -> str:
    """Cut an answer at the first stop string."""
    for stop in stops:
        text = text.split(stop)[0]
    return text.strip()
