"""Questions that cannot be asked: a picture cannot be decoded, code of the task or of the processor breaks, they are too long.

Whether a question is one of them depends on the benchmark and the model alone where bad ones are left out: then it is
missing from every row of a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vtpbench.harness.host.images import image_name, perceptual_hash, pillow_settings
from vtpbench.harness.host.threads import in_threads, threads_beside
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.record import OnBadQuestion
from vtpbench.harness.run.questions import DecodedImages, PrunedImages, Question
from vtpbench.pruners.errors import Impossible, UserError, failing_line

if TYPE_CHECKING:
    from PIL.Image import Image

    from vtpbench.harness.pruning.model import VisionLanguageModel


ADVICE = "mend or remove it, or leave such questions out of all rows with on_bad_question: skip"
HARNESS = Path(__file__).parents[1]
"""Lines of ours say nothing of what is wrong with a question."""
QUOTED = 80
"""Characters of a question that are shown."""


class BadQuestion(UserError):
    """A question that cannot be asked; the message says which one, what it asks, what it shows, and what is wrong."""

    def __init__(
        self, sample: str, benchmark: str, text: str, images: Sequence[object], problem: str, advice: str = ADVICE
    ) -> None:
        asked = " ".join(text.split())
        asked = asked if len(asked) <= QUOTED else f"{asked[:QUOTED]}..."
        shown = f", {_shown(images)}" if images else ""
        self.sample, self.problem = sample, problem
        super().__init__(f'question {sample} of {benchmark} ("{asked}"{shown}): {problem}; {advice}')


def problem_of(error: Exception) -> str:
    """Say in one line what went wrong, and where; the same for the same mistake."""
    attempt = getattr(error, "last_attempt", None)  # lmms-eval tries the scoring code of some tasks again and again
    inner = attempt.exception() if attempt is not None else None
    error = inner if isinstance(inner, Exception) else error
    first = " ".join(str(error).split()) or "no message"
    message = first if isinstance(error, UserError) else f"{type(error).__name__}: {first}{failing_line(error, without=HARNESS)}"
    return re.sub(r" at 0x[0-9a-f]+", "", message)


def is_of_question(error: Exception) -> bool:
    """Whether an error may be due to what is asked: not what the device or a pruner cannot do."""
    return not isinstance(error, (UserError, Impossible, torch.OutOfMemoryError, torch.AcceleratorError))


def too_long(tokens: int, of_images: int, limit: int) -> str:
    """Say that a prompt does not fit into the model's positions."""
    shown = f", {of_images} of them of its pictures," if of_images else ""
    return f"its prompt of {tokens} tokens{shown} is longer than the model's context of {limit} positions allows"


def _shown(images: Iterable[object]) -> str:
    sizes = [size for size in (getattr(image, "size", None) for image in images) if isinstance(size, tuple)]
    listed = ", ".join(f"{width} x {height}" for width, height in sizes[:3]) + (", ..." if len(sizes) > 3 else "")
    return f"picture of {listed}" if len(sizes) == 1 else f"{len(sizes)} pictures of {listed}"


def _hashed(images: list[Image]) -> DecodedImages | Exception:
    """Hash the images of a question; an error is told, as it is the question's."""
    try:
        return DecodedImages(images, tuple(map(image_name, images)), perceptual_hash(images[0]) if images else "")
    except Exception as e:  # Pillow's, for colours that it cannot convert
        return e


class BadQuestions:
    """What becomes of questions that cannot be asked of a model.

    Attributes
    ----------
    model : that is asked
    on_bad : `fail` raises, `skip` leaves them out
    skipped : what is wrong with those that were left out, by sample

    """

    def __init__(self, model: VisionLanguageModel, on_bad: OnBadQuestion = "fail") -> None:
        self.model, self.on_bad = model, on_bad
        self.skipped: dict[str, str] = {}

    def decode(self, questions: Sequence[Question]) -> dict[str, DecodedImages]:
        """Decode the pictures of questions, whole ones only; by sample."""
        shown: list[tuple[Question, list[Image]]] = []
        for question in questions:  # in one thread: the task's code need not be made for several
            images: list[Image] = []
            try:
                with pillow_settings(truncated=False):
                    images = question.pictures()
                    for image in images:
                        image.load()
                    shown.append((question, images))
            except Exception as e:  # the task's code, the library of the data, or Pillow
                self._leave_out(question, images, e)
        threads = threads_beside(self.model.device)
        hashed = chain.from_iterable(in_threads(lambda some: [_hashed(images) for _, images in some], shown, threads))
        found = {}
        for (question, images), own in zip(shown, hashed, strict=True):
            if isinstance(own, DecodedImages):
                found[question.sample] = own
            else:
                self._leave_out(question, images, own)
        return found

    def without_unreadable(self, decoded: Mapping[str, DecodedImages], questions: Sequence[Question]) -> list[Question]:
        """Look for those whose pictures the model cannot take, whatever the pruner, and leave them out."""
        unpruned = Pipeline(self.model)
        for question in questions:
            try:
                unpruned.encode(decoded[question.sample].images)
            except Exception as e:  # the processor's, mostly
                self._leave_out(question, decoded[question.sample].images, e)
        return self._rest(questions)

    def fitting(self, pruned: Mapping[str, PrunedImages], questions: Sequence[Question]) -> Sequence[Question]:
        """Where questions may be left out, take those that could be asked without pruning: the same for every pruner."""
        if self.on_bad == "fail":
            return questions
        for question in questions:
            own = pruned[question.sample]
            text, shown = self.text_tokens(question, own), sum(image.original for image in own.tokens)
            if text is not None:
                self.require_room(question, own, text + shown, shown)
        return self._rest(questions)

    def text_tokens(self, question: Question, own: PrunedImages) -> int | None:
        """Count the tokens of a prompt that are none of its images; None where it cannot be tokenized and is left out."""
        images = len(own.tokens)
        try:
            return len(self.model.remembered_prompt_ids(question.text, images)) - images
        except Exception as e:  # a template's, a tokenizer's
            self._leave_out(question, own.images, e)
        return None

    def require_room(self, question: Question, own: PrunedImages, tokens: int, of_images: int) -> None:
        """Leave a question out whose prompt, of so many tokens, leaves no position of the model for an answer."""
        limit = self.model.shape.positions
        if limit is not None and tokens >= limit:
            self._leave_out(question, own.images, too_long(tokens, of_images, limit))

    def refuse_overrun(self, question: Question, own: PrunedImages, tokens: int, answer: int) -> None:
        """Raise `BadQuestion` for an answer, of so many tokens behind so many of the prompt, that left the model's positions."""
        limit = self.model.shape.positions
        if limit is not None and tokens + answer > limit:
            problem = f"its answer of {answer} tokens behind a prompt of {tokens} leaves the model's context of {limit} positions"
            advice = f"allow at most {limit - tokens} with generation: {{max_new_tokens: N}}"
            raise BadQuestion(question.sample, question.benchmark, question.text, own.images, problem, advice)

    def _leave_out(self, question: Question, images: Sequence[Image], problem: Exception | str) -> None:
        """Note that a question cannot be asked, or raise."""
        cause = problem if isinstance(problem, Exception) else None
        if cause is not None and not is_of_question(cause):
            raise cause
        what = problem_of(problem) if isinstance(problem, Exception) else problem
        if self.on_bad == "fail":
            raise BadQuestion(question.sample, question.benchmark, question.text, images, what) from cause
        self.skipped[question.sample] = what

    def _rest(self, questions: Sequence[Question]) -> list[Question]:
        return [question for question in questions if question.sample not in self.skipped]
