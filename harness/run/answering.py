"""Answer many questions in batches: windows of questions share their images, batches within them what is alike in length.

Windows and batches are a function of the benchmark's questions, never of what is left to do: a run that was interrupted asks
whole batches again, so that its answers are those of an undisturbed run also where a device rounds other batches otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TypeVar

import torch
from PIL.Image import Image
from torch import Tensor

from vtpbench.harness.host.device import is_out_of_memory
from vtpbench.harness.host.images import image_name
from vtpbench.harness.pruning.batch import ImageTokens
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.cell import Answer, KeptTokens
from vtpbench.harness.run.pictures import PictureFolder, TokenPlaces

T = TypeVar("T")
R = TypeVar("R")
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
    places: list[TokenPlaces]


class Answerer:
    """Answers questions with one pruner.

    Attributes
    ----------
    pipeline : the model with the pruner at its budget
    batch_size : questions that are answered together
    picture_folder : where pictures go of the questions that are pictured
    seconds : time spent answering so far
    smallest : the smallest batch that was needed

    """

    def __init__(self, pipeline: Pipeline, batch_size: int, picture_folder: PictureFolder | None = None) -> None:
        self.pipeline, self.batch_size, self.picture_folder = pipeline, batch_size, picture_folder
        self.seconds = 0.0
        self.smallest = batch_size

    def answer(self, questions: Sequence[Question], known: Container[str] = ()) -> Iterator[list[Answer]]:
        """Yield the answers batch by batch, but for samples that are `known`; no answer depends on its batch.

        Questions come in windows of a few batches in their own order, in which benchmarks keep the questions on an image
        together: a window encodes each of its images once, then asks the longest questions first.
        """
        for window in _cut(questions, WINDOW * self.batch_size):
            batches = [batch for batch in _batches(window, self.batch_size) if _missing(batch, known)]
            if not batches:
                continue
            images: dict[str, PrunedImages] = {}
            for found in self._in_parts(self._prune, window, WINDOW):
                images.update(found)
            for batch in batches:
                for answers in self._in_parts(partial(self._batch, images), batch, 1):
                    yield [answer for answer in answers if answer.sample not in known]

    def _in_parts(self, work: Callable[[Sequence[T]], R], items: Sequence[T], batches: int) -> Iterator[R]:
        """Do work on so many batches of items; on half as many from then on where the device has too little memory."""
        done = 0
        while done < len(items):
            part = items[done : done + batches * self.smallest]
            start = time.perf_counter()
            try:
                result = work(part)
            except (torch.OutOfMemoryError, torch.AcceleratorError) as e:
                if self.smallest == 1 or not is_out_of_memory(e):
                    raise
                self.smallest //= 2
            else:
                done += len(part)
                self.seconds += time.perf_counter() - start
                yield result
                continue
            self.seconds += time.perf_counter() - start
            torch.cuda.empty_cache()

    def _batch(self, images: Mapping[str, PrunedImages], questions: Sequence[Question]) -> list[Answer]:
        pruned = [images[q.sample] for q in questions]
        prepared = self.pipeline.assemble([q.text for q in questions], [own.tokens for own in pruned])
        texts, trace = self.pipeline.generate(prepared, questions[0].max_new_tokens)
        nothing = [0] * self.pipeline.model.shape.decoder_layers
        numbers = {id(image): n for n, image in enumerate(prepared.images)}
        answers = []
        for row, (q, text, own) in enumerate(zip(questions, texts, pruned, strict=True)):
            counts = tuple(tuple(trace.per_layer[numbers[id(i)]] if id(i) in numbers else nothing) for i in own.tokens)
            originals = tuple(i.original for i in own.tokens)
            later = [trace.kept.get(numbers.get(id(i), -1), {}) for i in own.tokens]
            kept = tuple(map(_kept, own.places, own.tokens, later))  # none where no picture is asked for
            ended = trace.ended[row] or any(stop in text for stop in q.until)
            cut = _until(text, q.until)
            answers.append(Answer(q.sample, cut, own.names, originals, counts, kept, trace.finite[row], ended))
        return answers

    def _prune(self, questions: Sequence[Question]) -> dict[str, PrunedImages]:
        """Encode every distinct picture once, then prune it for each question that shows it; by sample."""
        pictures = [list(q.images()) for q in questions]
        names = [tuple(image_name(p) for p in own) for own in pictures]
        distinct = {n: p for own in zip(names, pictures, strict=True) for n, p in zip(*own, strict=True)}
        order = {name: n for n, name in enumerate(distinct)}
        entries = [order[name] for own in names for name in own]
        keys = [f"{q.name}:{n}" for q, own in zip(questions, names, strict=True) for n in range(len(own))]
        asked = [q.text for q, own in zip(questions, names, strict=True) for _ in own]
        shown = [group.shown_as(entries) for group in self.pipeline.encode(list(distinct.values()))]
        selected = self.pipeline.select(shown, keys, asked)
        rest = iter(selected[n] for n in range(len(entries)))
        tokens = [[next(rest) for _ in own] for own in names]
        return {
            q.sample: PrunedImages(own, left, self._places(own, images, left) if q.pictured else [])
            for q, own, images, left in zip(questions, names, pictures, tokens, strict=True)
        }

    def _places(self, names: Sequence[str], images: Sequence[Image], tokens: Sequence[ImageTokens]) -> list[TokenPlaces]:
        """Write the pictures of a question."""
        folder, model = self.picture_folder, self.pipeline.model
        assert folder is not None, "a question is pictured for a folder"
        shown = zip(names, images, tokens, strict=True)
        return [folder.add(model, name, image, left.grid) for name, image, left in shown]


def _cut(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into parts of one size, the last as long as what is left."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _batches(window: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    """Put the questions of a window into batches: equally long answers together, the longest answers and questions first."""
    ordered = sorted(window, key=lambda q: (-q.max_new_tokens, -len(q.text)))
    for _, alike in groupby(ordered, key=lambda q: q.max_new_tokens):
        yield from _cut(list(alike), size)


def _missing(batch: Sequence[Question], known: Container[str]) -> bool:
    return any(question.sample not in known for question in batch)


def _kept(board: TokenPlaces, image: ImageTokens, later: Mapping[int, Tensor]) -> KeptTokens:
    """Note what stays at each cut."""
    cuts = tuple((layer, tuple(left.tolist())) for layer, left in image.kept(later).items())
    return KeptTokens(board.picture, image.original, board.tiles, cuts)


def _until(text: str, stops: Sequence[str]) -> str:
    """Cut an answer before the first stop string; blanks stay, as filters of a task may count them."""
    for stop in filter(None, stops):
        text = text.split(stop)[0]
    return text
