"""Questions that cannot be asked: named, or left out of every row alike."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.bad_questions import BadQuestion, BadQuestions, problem_of
from vtpbench.harness.run.questions import ChangedPicture, Question
from vtpbench.pruners.base import Pruner
from vtpbench.pruners.errors import Infeasible
from vtpbench.pruners.registry import build

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))


def encoded(kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    NOISE.save(stream, kind, **options)
    return stream.getvalue()


def ask(n: int, images: Callable[[], Sequence[Any]], text: str = "What is it?", tokens: int = 4) -> Question:
    return Question(str(n), text, images, tokens, benchmark="mine")


def stored(*data: bytes) -> Callable[[], list[Image.Image]]:
    return lambda: [Image.open(io.BytesIO(each)) for each in data]


def answered(answerer: Answerer, questions: Sequence[Question]) -> dict[str, str]:
    return {answer.sample: answer.text for batch in answerer.answer(questions) for answer in batch}


@pytest.fixture(scope="module")
def model() -> Family:
    return TINY["llava"]()


WHOLE = encoded("JPEG")
CUT_OFF = {
    "jpeg": WHOLE[: len(WHOLE) // 8],
    "progressive": encoded("JPEG", progressive=True)[:20000],
    "png": encoded("PNG")[:20000],
    "bmp": encoded("BMP")[:20000],
    "webp": encoded("WEBP", lossless=True)[:20000],
    "tiff": encoded("TIFF")[:20000],
    "gif": encoded("GIF")[:20000],
    "text": b"<html>404 Not Found</html>",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", CUT_OFF)
def test_a_picture_that_is_no_whole_one_names_its_question_whatever_pillow_is_told(
    kind: str, model: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [ask(n, stored(CUT_OFF[kind] if n == 3 else WHOLE), f"What is in picture {n}?") for n in range(6)]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(BadQuestion, match=r'^question 3 of mine \("What is in picture 3\?".*; mend or remove it') as told:
        answered(Answerer(Pipeline(model), 2), questions)
    assert " at 0x" not in str(told.value)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert set(answered(Answerer(Pipeline(model), 2, on_bad="skip"), questions)) == {"0", "1", "2", "4", "5"}


def test_importing_the_engine_leaves_pillow_as_it_was() -> None:
    import vtpbench.harness.run.engine

    assert vtpbench.harness.run.engine
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def broken() -> list[Image.Image]:
    return [{}["no such column"]]


def test_a_task_that_gives_none_has_no_picture_to_show(model: Family) -> None:
    none: Any = None
    given = [answered(Answerer(Pipeline(model), 2), [ask(0, shown)]) for shown in (list, lambda: none)]
    assert given[0] == given[1]


@pytest.mark.parametrize("clip", ["clip.mp4", {"video": "clip.mp4"}, np.zeros((2, 8, 8, 3))])
def test_a_video_is_said_to_be_one_that_cannot_be_shown(clip: Any, model: Family) -> None:
    with pytest.raises(BadQuestion, match=r"question 7 of mine .*: video and sound are not supported"):
        answered(Answerer(Pipeline(model), 2), [ask(7, lambda: [clip])])


class Colourless(Image.Image):
    """A picture that is read, and cannot be shown in colours."""

    def load(self) -> None:
        return None

    def convert(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError("conversion from X to RGB not supported")


def test_a_picture_that_cannot_be_hashed_names_its_question_or_is_left_out(model: Family) -> None:
    questions = [ask(0, many(0)), ask(1, lambda: [Colourless()]), ask(2, many(2))]
    with pytest.raises(BadQuestion, match=r"question 1 of mine .*conversion from X to RGB not supported"):
        BadQuestions(model).decode(questions)
    lenient = BadQuestions(model, "skip")
    assert list(lenient.decode(questions)) == ["0", "2"]
    assert list(lenient.skipped) == ["1"]


@pytest.mark.parametrize("images", [broken, lambda: ["a path"]], ids=["raises", "no picture"])
def test_code_of_the_task_that_breaks_names_its_question_and_line(images: Any, model: Family) -> None:
    questions = [ask(n, images if n == 1 else stored(WHOLE)) for n in range(4)]
    with pytest.raises(BadQuestion, match="question 1 of mine") as told:
        answered(Answerer(Pipeline(model), 2), questions)
    assert (", at test_bad_questions.py:" in str(told.value)) == (images is broken)


@pytest.mark.parametrize("pruner", ["vanilla", "random", "text-only"])
def test_a_picture_that_the_processor_refuses_names_its_question_and_size(pruner: str, tools: Any) -> None:
    qwen = TINY["qwen2_5_vl"]()
    questions = [ask(n, lambda n=n: [tools.picture(40, 30, n), tools.picture(2, 900) if n == 2 else NOISE]) for n in range(5)]
    pipeline = Pipeline(qwen, build(pruner, {}), lambda n: None if pruner == "vanilla" else n // 2)
    with pytest.raises(BadQuestion, match=r"question 2 of mine .*2 pictures of 40 x 30, 2 x 900\): ValueError.*aspect ratio"):
        answered(Answerer(pipeline, 4), questions)
    answerer = Answerer(pipeline, 4, on_bad="skip")
    alone = answered(Answerer(pipeline, 4), [q for q in questions if q.sample != "2"])
    assert answered(answerer, questions) == alone
    assert list(answerer.bad.skipped) == ["2"]


@pytest.mark.parametrize("name", TINY)
def test_text_that_cannot_be_tokenized_names_its_question(name: str) -> None:
    family = TINY[name]()
    questions = [ask(n, stored(WHOLE), "half a character: \ud800" if n == 2 else "What?") for n in range(4)]
    with pytest.raises(BadQuestion, match="question 2 of mine"):
        answered(Answerer(Pipeline(family), 4), questions)
    assert set(answered(Answerer(Pipeline(family), 4, on_bad="skip"), questions)) == {"0", "1", "3"}


@pytest.mark.parametrize("mode", ["fail", "skip"])
def test_a_pruner_that_breaks_is_no_questions_fault(mode: Any, model: Family) -> None:
    class Broken(Pruner):
        def score(self, view: Any) -> Any:
            raise ZeroDivisionError("a defect")

    class Unable(Pruner):
        def cuts(self, budget: int, n: int, shape: Any) -> Any:
            raise Infeasible("never")

    for pruner, error in ((Broken(), ZeroDivisionError), (Unable(), Infeasible)):
        answerer = Answerer(Pipeline(model, pruner, lambda n: 4), 4, on_bad=mode)
        with pytest.raises(error):
            answered(answerer, [ask(n, stored(WHOLE)) for n in range(3)])


def many(n: int) -> Callable[[], list[Image.Image]]:
    """Different pictures, of 16 tokens each for the tiny LLaVA of 1024 positions."""
    return lambda: [Image.new("RGB", (20, 20), (number, 0, 0)) for number in range(n)]


def test_a_prompt_beyond_the_models_positions_is_refused_unless_pruning_makes_room(model: Family) -> None:
    assert model.shape.positions == 1024
    questions = [ask(0, many(1)), ask(1, many(70), "Which is red?"), ask(2, many(2))]
    with pytest.raises(BadQuestion, match=r"question 1 of mine .*1120 of them of its pictures.* context of 1024 positions"):
        answered(Answerer(Pipeline(model), 2), questions)
    pruned = Pipeline(model, build("random", {}), lambda n: 2)
    assert set(answered(Answerer(pruned, 2), questions)) == {"0", "1", "2"}
    with pytest.raises(BadQuestion, match="question 1"):
        answered(Answerer(Pipeline(model, build("fastv", {"layer": 1}), lambda n: 6), 2), questions)


def test_an_answer_that_leaves_the_models_positions_is_refused_with_the_number_that_fits(model: Family) -> None:
    pipeline = Pipeline(model)
    width = pipeline.run([Prompt("key", "What is it?", many(46)())], 1).batch.layout.width
    with pytest.raises(BadQuestion, match=rf"its answer of 200 tokens behind a prompt of {width}.*allow at most {1024 - width}"):
        answered(Answerer(pipeline, 1), [ask(0, many(46), tokens=200)])
    assert answered(Answerer(pipeline, 1), [ask(0, many(46), tokens=1024 - width)])


@pytest.mark.parametrize("pruner", ["vanilla", "random", "fastv", "text-only"])
def test_every_row_leaves_out_the_same_questions(pruner: str, model: Family) -> None:
    questions = [ask(0, many(1)), ask(1, many(70)), ask(2, stored(b"")), ask(3, many(2)), ask(4, many(2), "\ud800")]
    answerer = Answerer(Pipeline(model, build(pruner, {}), lambda n: None if pruner == "vanilla" else 8), 2, on_bad="skip")
    assert set(answered(answerer, questions)) == {"0", "3"}
    assert set(answerer.bad.skipped) == {"1", "2", "4"}


def test_a_resumed_cell_whose_picture_changed_says_so(model: Family) -> None:
    questions = [ask(n, many(1 + n)) for n in range(4)]
    first = {a.sample: a for batch in Answerer(Pipeline(model), 2).answer(questions) for a in batch}
    known = {n: first[n] for n in ("0", "2")}
    again = [a.sample for batch in Answerer(Pipeline(model), 2).answer(questions, known) for a in batch]
    assert sorted(again) == ["1", "3"]
    known["2"] = Answer("2", "yes", ("0" * 16,) * 3, (), ())
    with pytest.raises(ChangedPicture, match="a picture of question 2 has changed"):
        list(Answerer(Pipeline(model), 2).answer(questions, known))


def test_the_same_mistake_is_told_in_the_same_words() -> None:
    assert problem_of(ValueError("bad <object at 0x7f00aa>\n  in two lines")) == "ValueError: bad <object> in two lines"
    assert problem_of(ValueError()) == "ValueError: no message"
