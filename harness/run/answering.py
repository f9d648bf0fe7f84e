"""Answer many questions in batches: windows of questions share their images, batches within them what is alike in length.

Windows and batches are a function of the benchmark's questions, never of what is left to do: a run that was interrupted asks
whole batches again, so that its answers are those of an undisturbed run also where a device rounds other batches otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import TypeVar

import torch
from PIL.Image import Image
from torch import Tensor

from vtpbench.harness.host.device import is_out_of_memory
from vtpbench.harness.pruning.batch import ImageTokens, PromptBatch, VisionTokens
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.cell import Answer, KeptTokens
from vtpbench.harness.records.record import OnBadQuestion
from vtpbench.harness.run.bad_questions import BadQuestions, is_of_question
from vtpbench.harness.run.batch_size import WINDOW
from vtpbench.harness.run.pictures import PictureFolder, TokenPlaces
from vtpbench.harness.run.questions import ChangedPicture, DecodedImages, PrunedImages, Question

T = TypeVar("T")
R = TypeVar("R")
Encode = Callable[[], Sequence[VisionTokens]]


class Answerer:
    """Answers questions with one pruner.

    Attributes
    ----------
    pipeline : the model with the pruner at its budget
    batch_size : questions that are answered together
    picture_folder : where pictures go of the questions that are pictured
    bad : what becomes of questions that cannot be asked
    seconds : time spent answering so far
    smallest : the smallest batch that was needed

    """

    def __init__(
        self,
        pipeline: Pipeline,
        batch_size: int,
        picture_folder: PictureFolder | None = None,
        on_bad: OnBadQuestion = "fail",
    ) -> None:
        self.pipeline, self.batch_size, self.picture_folder = pipeline, batch_size, picture_folder
        self.bad = BadQuestions(pipeline.model, on_bad)
        self.seconds = 0.0
        self.smallest = batch_size

    def answer(self, questions: Sequence[Question], known: Mapping[str, Answer] = MappingProxyType({})) -> Iterator[list[Answer]]:
        """Yield the answers batch by batch, but for samples that are `known`; no answer depends on its batch.

        Questions come in windows of a few batches in their own order, in which benchmarks keep the questions on an image
        together: a window encodes each of its images once, then asks the longest questions first.

        Raises `BadQuestion` for one that cannot be asked, unless such are left out, and `ChangedPicture` where a known answer
        was given to other pictures.
        """
        for window in windows(questions, self.batch_size):
            if missing(window, known):
                yield from self.answer_window(window, known, self.bad.decode(window))

    def answer_window(
        self,
        window: Sequence[Question],
        known: Mapping[str, Answer],
        decoded: Mapping[str, DecodedImages],
        encode: Encode | None = None,
    ) -> Iterator[list[Answer]]:
        """Yield the answers to the questions of one window, see `answer`.

        Parameters
        ----------
        window : questions as `windows` cuts them
        known : answers that are not to be told again, by sample
        decoded : pictures of those questions that have them whole, by sample
        encode : gives the distinct ones encoded for this pruner, numbered as `distinct_images` has them, where that is known

        """
        for sample, images in decoded.items():
            if sample in known and known[sample].images != images.names:
                raise ChangedPicture(sample)
        usable = [question for question in window if question.sample in decoded]
        if not missing(usable, known):
            return

        def prune(part: Sequence[Question]) -> dict[str, PrunedImages]:
            return self._prune(decoded, part, encode if len(part) == len(usable) else None)

        pruned: dict[str, PrunedImages] = {}
        for found in self._in_parts(prune, usable, WINDOW):
            pruned.update(found)
        for batch in _batches([question for question in usable if question.sample in pruned], self.batch_size, decoded):
            if missing(batch, known):
                for answers in self._in_parts(partial(self._batch, pruned), batch, 1):
                    yield [answer for answer in answers if answer.sample not in known]

    def _in_parts(self, work: Callable[[Sequence[T]], R], items: Sequence[T], batches: int) -> Iterator[R]:
        """Do work on so many batches of items; on half as many from then on where the device has too little memory.

        First graphs and their buffers are given up: what lies there depends on what was asked before, the batch must not.
        """
        done, cleared = 0, False
        while done < len(items):
            part = items[done : done + batches * self.smallest]
            start = time.perf_counter()
            try:
                result = work(part)
            except (torch.OutOfMemoryError, torch.AcceleratorError) as e:
                crowded = self.pipeline.model.holds_memory and not cleared
                if not is_out_of_memory(e) or (self.smallest == 1 and not crowded):
                    raise
                cleared = True
                if not crowded:
                    self.smallest //= 2
            else:
                done, cleared = done + len(part), False
                self.seconds += time.perf_counter() - start
                yield result
                continue
            self.seconds += time.perf_counter() - start
            self.pipeline.model.forget_graphs()
            torch.cuda.empty_cache()

    def _batch(self, images: Mapping[str, PrunedImages], asked: Sequence[Question]) -> list[Answer]:
        questions = self.bad.fitting(images, asked)
        if not questions:
            return []
        pruned = [images[q.sample] for q in questions]
        prepared = self._assemble(questions, pruned)
        texts, trace = self.pipeline.generate(prepared, questions[0].max_new_tokens)
        for q, own, length, written in zip(questions, pruned, prepared.layout.lengths, trace.written, strict=True):
            self.bad.refuse_overrun(q, own, length, written)
        nothing = (0,) * self.pipeline.model.shape.decoder_layers
        numbered = iter(range(len(prepared.images)))  # images without a token are none of the batch's
        answers = []
        for row, (q, text, own) in enumerate(zip(questions, texts, pruned, strict=True)):
            numbers = [next(numbered) if len(image.index) else None for image in own.tokens]
            counts = tuple(nothing if n is None else tuple(trace.per_layer[n]) for n in numbers)
            originals = tuple(i.original for i in own.tokens)
            later = [{} if n is None else trace.kept.get(n, {}) for n in numbers]
            kept = tuple(map(_kept, own.places, own.tokens, later))  # none where no picture is asked for
            ended = trace.ended[row] or any(stop in text for stop in q.until)
            cut = _until(text, q.until)
            cut = cut.strip() if q.strip else cut
            finite, tokens = trace.finite[row], trace.written[row]
            seen = own.perceptual_hash
            answers.append(Answer(q.sample, cut, own.names, originals, counts, kept, finite, ended, tokens, seen))
        return answers

    def _assemble(self, questions: Sequence[Question], pruned: Sequence[PrunedImages]) -> PromptBatch:
        """Make the prompts of a batch; raises `BadQuestion` for one that cannot be made or does not fit into the model."""
        try:
            prompt_ids = self.pipeline.model.remembered_prompt_ids
            batch = self.pipeline.assemble([q.text for q in questions], [own.tokens for own in pruned], prompt_ids)
        except Exception:
            for q, own in zip(questions, pruned, strict=True):
                self.bad.text_tokens(q, own)  # names the one that is to blame
            raise
        for q, own, tokens in zip(questions, pruned, batch.layout.lengths, strict=True):
            self.bad.require_room(q, own, tokens, sum(len(image.index) for image in own.tokens))
        return batch

    def _prune(
        self, decoded: Mapping[str, DecodedImages], questions: Sequence[Question], encode: Encode | None
    ) -> dict[str, PrunedImages]:
        """Encode and prune the pictures of questions; those that the model's processor cannot take are left out."""
        try:
            return self._select(decoded, questions, encode)
        except Exception as e:
            rest = self.bad.without_unreadable(decoded, questions) if is_of_question(e) else questions
            if len(rest) == len(questions):
                raise
        return self._prune(decoded, rest, None)

    def _select(
        self, decoded: Mapping[str, DecodedImages], questions: Sequence[Question], encode: Encode | None
    ) -> dict[str, PrunedImages]:
        """Encode every distinct picture once and prune it: once for all questions, unless what is asked decides; by sample.

        What stays of a picture must not depend on what is asked about it where a method does not look at that: draws are
        seeded by the picture.
        """
        distinct = distinct_images(decoded, questions)
        order = {name: n for n, name in enumerate(distinct)}
        encoded = self.pipeline.encode(list(distinct.values())) if encode is None else encode()
        shown = [decoded[q.sample] for q in questions]
        names = [images.names for images in shown]
        if self.pipeline.pruner.reads_question:
            entries = [order[name] for own in names for name in own]
            keys = [name for own in names for name in own]
            asked = [q.text for q, own in zip(questions, names, strict=True) for _ in own]
            selected = self.pipeline.select([group.shown_as(entries) for group in encoded], keys, asked)
            numbers = iter(range(len(entries)))
            tokens = [[selected[next(numbers)] for _ in own] for own in names]
        else:
            selected = self.pipeline.select(encoded, list(distinct))
            tokens = [[selected[order[name]] for name in own] for own in names]
        found = {}
        for q, own, left in zip(questions, shown, tokens, strict=True):
            places = self._places(own.names, own.images, left) if q.pictured else []
            found[q.sample] = PrunedImages(own.names, own.images, left, places, own.perceptual_hash)
        return found

    def _places(self, names: Sequence[str], images: Sequence[Image], tokens: Sequence[ImageTokens]) -> list[TokenPlaces]:
        """Write the pictures of a question."""
        folder, model = self.picture_folder, self.pipeline.model
        assert folder is not None, "a question is pictured for a folder"
        shown = zip(names, images, tokens, strict=True)
        return [folder.add(model, name, image, left.grid) for name, image, left in shown]


def windows(questions: Sequence[Question], batch_size: int) -> Iterator[Sequence[Question]]:
    """Cut a benchmark's questions into those whose images are encoded together."""
    return _cut(questions, WINDOW * batch_size)


def distinct_images(decoded: Mapping[str, DecodedImages], questions: Iterable[Question]) -> dict[str, Image]:
    """Collect the distinct pictures of questions by name, in the order in which they are first shown."""
    return {name: image for q in questions for name, image in zip(decoded[q.sample].names, decoded[q.sample].images, strict=True)}


def missing(questions: Sequence[Question], known: Collection[str]) -> bool:
    """Whether a question has no answer yet."""
    return any(question.sample not in known for question in questions)


def _cut(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into parts of one size, the last as long as what is left."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _batches(window: Sequence[Question], size: int, decoded: Mapping[str, DecodedImages]) -> Iterator[Sequence[Question]]:
    """Put the questions of a window into batches: equally long answers together, the longest first.

    Among these, questions on the same pictures stand together, so that they can share a prefix; pictures come by their longest
    question, the longest first.
    """
    longest: dict[tuple[str, ...], int] = {}
    for q in window:
        names = decoded[q.sample].names
        longest[names] = max(longest.get(names, 0), len(q.text))
    place = {names: n for n, names in enumerate(longest)}

    def order(q: Question) -> tuple[int, int, int, int]:
        names = decoded[q.sample].names
        return -q.max_new_tokens, -longest[names], place[names], -len(q.text)

    for _, alike in groupby(sorted(window, key=order), key=lambda q: q.max_new_tokens):
        yield from _cut(list(alike), size)


def _kept(places: TokenPlaces, image: ImageTokens, later: Mapping[int, Tensor]) -> KeptTokens:
    """Note what stays at each cut."""
    cuts = tuple((layer, tuple(left.tolist())) for layer, left in image.kept(later).items())
    return KeptTokens(places.picture, image.original, places.tiles, cuts)


def _until(text: str, stops: Sequence[str]) -> str:
    """Cut an answer before the first stop string; blanks stay, as filters of a task may count them."""
    for stop in filter(None, stops):
        text = text.split(stop)[0]
    return text
