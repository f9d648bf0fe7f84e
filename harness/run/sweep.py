"""Answer the questions of a benchmark for many rows in one pass over its pictures.

A matrix is many rows over the same pictures. Here a picture is decoded and preprocessed once, and goes through the tower
once with the evidence that all rows need together; then every row selects and answers. The answers go into each cell's journal;
what a cell is, how it is asked and how it is scored does not change: measured alone it finds the same windows and batches, and
gives the same answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch

from vtpbench.harness.host.device import is_out_of_memory
from vtpbench.harness.host.files import StorageError
from vtpbench.harness.pruning.batch import ImageGroup, VisionTokens
from vtpbench.harness.pruning.model import VisionLanguageModel
from vtpbench.harness.pruning.shared_tower import encode_together
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.run.answering import Answerer, Encode, distinct_images, missing, windows
from vtpbench.harness.run.bad_questions import BadQuestions
from vtpbench.harness.run.questions import DecodedImages, Question

AHEAD = 2
"""Windows that are decoded before their turn: more would only fill the host's memory."""


@dataclass(frozen=True)
class SweepShare:
    """What of a sweep is asked at a time.

    Attributes
    ----------
    questions : whole windows
    cells : ids of those that are asked; None = all

    """

    questions: slice
    cells: frozenset[str] | None = None


@dataclass(frozen=True)
class SweepRow:
    """A cell that takes part.

    Attributes
    ----------
    answerer : the model with the cell's pruner at its budget
    known : answers of an earlier attempt, by sample
    add : keeps every finished batch, as a journal does
    log : keeps what is said while the row is at work

    """

    answerer: Answerer
    known: Mapping[str, Answer]
    add: Callable[[list[Answer]], None]
    log: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class DecodedWindow:
    """Questions with their pictures, decoded by sample; `groups` are the distinct pictures as the tower takes them."""

    questions: Sequence[Question]
    decoded: Mapping[str, DecodedImages]
    groups: Sequence[ImageGroup] | None
    """None where the model's processor refuses a picture: then each row finds out which."""


class WindowReader:
    """Decodes and preprocesses windows, and keeps the last one: those who share a window ask it of some rows at a time.

    Parameters
    ----------
    model : whose processor takes the pictures
    bad : what becomes of questions whose pictures cannot be decoded

    """

    def __init__(self, model: VisionLanguageModel, bad: BadQuestions) -> None:
        self._model, self._bad = model, bad
        self._last: DecodedWindow | None = None

    def read(self, questions: Sequence[Question]) -> DecodedWindow:
        """Give a window; raises `BadQuestion` where a picture cannot be decoded, unless such questions are left out."""
        if self._last is None or list(self._last.questions) != list(questions):
            self._last = None  # before the next one comes: both may be large
            self._last = self._read(questions)
        return self._last

    def _read(self, questions: Sequence[Question]) -> DecodedWindow:
        decoded = self._bad.decode(questions)
        usable = [question for question in questions if question.sample in decoded]
        distinct = list(distinct_images(decoded, usable).values())
        try:
            groups = self._model.group(distinct) if distinct else ()
        except Exception:  # each row finds out which picture it is
            return DecodedWindow(questions, decoded, None)
        return DecodedWindow(questions, decoded, groups)


def sweep(
    rows: Sequence[SweepRow],
    questions: Sequence[Question],
    reader: WindowReader,
    progress: Callable[[int, int], None],
) -> None:
    """Answer what the rows do not know yet, window by window.

    A row in which anything goes wrong is left out from then on, and what it has is kept: the cell will be asked by
    itself, and says what is wrong as if it had never been here. All rows have the same model and the same batch size.

    Parameters
    ----------
    rows : cells of one model and benchmark
    questions : of the benchmark, in its order
    reader : of the rows' model; it keeps the last window for further rows
    progress : is told how many answers of how many there are, first those that were known

    Raises
    ------
    StorageError : answers cannot be written
    BadQuestion : as `reader` does

    """
    left = list(rows)
    done, total = sum(q.sample in row.known for row in rows for q in questions), len(rows) * len(questions)
    progress(done, total)
    wanted = [part for part in windows(questions, rows[0].answerer.batch_size) if any(missing(part, row.known) for row in rows)]
    for window in _read_ahead(reader, wanted):
        asking = [row for row in left if missing(window.questions, row.known)]
        for row, encode in zip(asking, _encode(window, asking), strict=True):
            try:
                with row.log():
                    for answers in row.answerer.answer_window(window.questions, row.known, window.decoded, encode):
                        row.add(answers)
                        done += len(answers)
                        progress(done, total)
            except (KeyboardInterrupt, GeneratorExit, StorageError):
                raise
            except BaseException:  # a stranger's pruner may also end the program; the cell's own turn tells what is wrong
                left.remove(row)


def _encode(window: DecodedWindow, rows: Sequence[SweepRow]) -> list[Encode | None]:
    """Encode a window's pictures once for the rows that can share that; say how each gets at its own."""
    groups = window.groups
    if groups is None:
        return [None] * len(rows)
    pipelines = [row.answerer.pipeline for row in rows]
    start = time.perf_counter()
    try:
        shared = encode_together(pipelines, groups)
    except Exception as e:  # what is wrong with the evidence, or how little memory there is, each row finds out by itself
        if is_out_of_memory(e):
            torch.cuda.empty_cache()
        shared = [None] * len(rows)
    spent, sharing = time.perf_counter() - start, sum(own is not None for own in shared)
    for row, own in zip(rows, shared, strict=True):
        row.answerer.seconds += 0.0 if own is None else spent / sharing
    return [
        partial(pipeline.encode_groups, groups) if own is None else partial(tuple[VisionTokens, ...], own)
        for pipeline, own in zip(pipelines, shared, strict=True)
    ]


def _read_ahead(reader: WindowReader, parts: Sequence[Sequence[Question]]) -> Iterator[DecodedWindow]:
    """Read windows in a thread of their own, in their order, while the device is busy with those before."""
    coming: list[Future[DecodedWindow]] = []
    rest = iter(parts)
    with ThreadPoolExecutor(1, "pictures") as thread:
        try:
            while True:
                while len(coming) < AHEAD and (part := next(rest, None)) is not None:
                    coming.append(thread.submit(reader.read, part))
                if not coming:
                    return
                yield coming.pop(0).result()
        finally:
            for future in coming:
                future.cancel()
