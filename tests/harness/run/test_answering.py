from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from PIL import Image

from vtpbench.harness.host.images import image_name
from vtpbench.harness.models.llava import Llava
from vtpbench.harness.models.tiny import tiny_llava
from vtpbench.harness.pruning.batch import PromptBatch
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.batch_size import WINDOW
from vtpbench.harness.run.pictures import PictureFolder
from vtpbench.harness.run.questions import Question
from vtpbench.harness.show.trace import trace_pruning
from vtpbench.pruners.base import Pruner, TokenView
from vtpbench.pruners.registry import build

PICTURES = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (20 + n, 30, 3), dtype=np.uint8)) for n in range(5)]


@pytest.fixture(scope="module")
def model() -> Llava:
    return tiny_llava()


def question(n: int, pictures: Sequence[int], tokens: int = 6, until: tuple[str, ...] = ()) -> Question:
    text = "Is there a thing? " * (1 + n % 3)
    return Question(str(n), text, lambda: [PICTURES[p] for p in pictures], tokens, until)


MIXED = [question(n, [[n % 5], [], [n % 5, (n + 1) % 5]][n % 3]) for n in range(18)]


def answers(model: Llava, pruner: Pruner, budget: int | None, batch: int, asked: Sequence[Question] = MIXED):
    answerer = Answerer(pipeline(model, pruner, lambda n: budget), batch)
    return {a.sample: a for found in answerer.answer(asked) for a in found}


@pytest.mark.parametrize(
    ("name", "options", "budget"),
    [("vanilla", {}, None), ("random", {"seed": 3}, 5), ("fastv", {"layer": 2}, 8), ("visionzip", {}, 5)],
)
def test_answers_do_not_depend_on_the_batch_or_the_order(model, name, options, budget) -> None:
    pruner = build(name, options)
    alone = answers(model, pruner, budget, 1)
    assert len(alone) == len(MIXED)
    assert answers(model, pruner, budget, 4) == alone
    assert answers(model, pruner, budget, 16) == alone
    assert answers(model, pruner, budget, 4, MIXED[::-1]) == alone


def test_counts_are_reported_per_image_and_layer(model) -> None:
    found = answers(model, build("random", {}), 5, 4)
    for q in MIXED:
        answer = found[q.sample]
        assert answer.per_layer == ((5,) * 6,) * len(answer.images)
        assert answer.original == (16,) * len(answer.images)
        assert answer.images == tuple(image_name(p) for p in q.images())


def test_images_that_lose_every_token_are_counted_as_nothing(model) -> None:
    found = answers(model, build("text-only", {}), 1, 4)
    assert found["0"].per_layer == ((0,) * 6,)
    assert found["1"].per_layer == ()


@pytest.mark.parametrize(
    ("name", "options", "budget"),
    [("vanilla", {}, None), ("fastv", {"layer": 2}, 8), ("sparsevlm", {}, 10), ("downsample", {}, 4), ("text-only", {}, 1)],
)
def test_kept_tokens_are_those_that_show_finds_and_noting_them_changes_no_answer(model, tmp_path, name, options, budget) -> None:
    pruner = build(name, options)
    plain = answers(model, pruner, budget, 4)
    pictured = [replace(q, pictured=n % 2 == 0) for n, q in enumerate(MIXED)]
    found = {
        a.sample: a
        for b in Answerer(Pipeline(model, pruner, lambda n: budget), 4, PictureFolder(tmp_path, 9)).answer(pictured)
        for a in b
    }
    assert {key: replace(a, kept=()) for key, a in found.items()} == plain
    for q in pictured:
        images = list(q.images())
        answer = found[q.sample]
        assert len(answer.kept) == (len(images) if q.pictured else 0)
        for n, (image, kept) in enumerate(zip(images, answer.kept, strict=False)):
            if len(images) == 1:
                seen = trace_pruning(model, pruner, image, image_name(image), q.text, lambda n: budget or n, 1)
                assert kept.cuts == tuple((stop.at, tuple(stop.kept.tolist())) for stop in seen.stops)
            assert kept.tokens == 16
            assert kept.picture == f"{answer.images[n]}-{image.width}x{image.height}"
            assert (tmp_path / "pictures" / f"{kept.picture}.jpg").exists()


@dataclass(frozen=True)
class Guided(Pruner):
    """Notes which question each image comes with, as a method does that embeds the question."""

    reads_question = True
    seen: set[tuple[str, str]] = field(default_factory=set, compare=False)

    def score(self, view: TokenView) -> torch.Tensor:
        self.seen.update(zip(view.keys, view.questions, strict=True))
        return view.features.norm(dim=-1)


def test_a_pruner_sees_what_is_asked_about_each_image(model) -> None:
    pruner = Guided()
    answers(model, pruner, 5, 4)
    assert pruner.seen == {(image_name(picture), q.text) for q in MIXED for picture in q.images()}


class Watched(Llava):
    """Counts what goes through the tower, and runs out of memory above two prompts."""

    encoded = 0
    room = 2
    refusal: Exception = torch.OutOfMemoryError("no room")

    def encode(self, group, schedule):
        self.encoded += len(group.members)
        return super().encode(group, schedule)


class Crowded(Pipeline):
    """Generates for no more prompts at once than the model has room for."""

    def generate(self, batch: PromptBatch, max_new_tokens: int):
        if len(batch.layout.rows) > self.model.room:
            raise self.model.refusal
        return super().generate(batch, max_new_tokens)


def pipeline(model: Llava, pruner: Pruner, budget: Callable[[int], int | None]) -> Pipeline:
    return (Crowded if isinstance(model, Watched) else Pipeline)(model, pruner, budget)


def watched(model: Llava) -> Watched:
    return Watched(model.model, model.tokenizer, model.image_processor, model.chat_template, model.preprocessing)


def test_each_picture_of_a_window_is_encoded_once(model) -> None:
    family = watched(model)
    family.room = 99
    batch = 2
    asked = [question(n, [n // 4]) for n in range(2 * WINDOW * batch)]
    answers(family, build("vanilla", {}), None, batch, asked)
    assert family.encoded == 4


@pytest.mark.parametrize("refusal", [torch.OutOfMemoryError("no room"), torch.AcceleratorError("CUDA error: out of memory\n")])
def test_running_out_of_memory_halves_the_batch_and_loses_nothing(model, refusal) -> None:
    family = watched(model)
    family.refusal = refusal
    answerer = Answerer(pipeline(family, build("vanilla", {}), lambda n: None), 16)
    found = {a.sample: a for batch in answerer.answer(MIXED) for a in batch}
    assert answerer.smallest == 2
    assert found == answers(model, build("vanilla", {}), None, 16)


class Filled(Watched):
    """Has no room as long as graphs lie there, and for two prompts then."""

    room = 0
    holds_memory = True

    def forget_graphs(self) -> None:
        self.holds_memory, self.room = False, 2


@pytest.mark.parametrize(("batch", "needed"), [(1, 1), (2, 2), (8, 2)])
def test_graphs_give_way_before_a_batch_is_halved(model, batch: int, needed: int) -> None:
    family = Filled(model.model, model.tokenizer, model.image_processor, model.chat_template, model.preprocessing)
    answerer = Answerer(pipeline(family, build("vanilla", {}), lambda n: None), batch)
    found = {a.sample: a for part in answerer.answer(MIXED[:9]) for a in part}
    assert answerer.smallest == needed
    assert found == answers(model, build("vanilla", {}), None, batch, MIXED[:9])


@pytest.mark.parametrize("known", [{"0"}, {str(n) for n in range(9)}, {str(n) for n in range(17)}, {"3", "11", "12"}])
def test_what_is_known_is_not_told_again_and_the_rest_is_asked_in_the_same_batches(model, known: set[str]) -> None:
    shapes: list[tuple[int, ...]] = []

    class Noting(Pipeline):
        def generate(self, batch, max_new_tokens):
            shapes.append(tuple(batch.layout.lengths))
            return super().generate(batch, max_new_tokens)

    everything = answers(model, build("random", {}), 5, 2)

    def told(known: set[str]) -> tuple[dict[str, str], list[tuple[int, ...]]]:
        shapes.clear()
        answerer = Answerer(Noting(model, build("random", {}), lambda n: 5), 2)
        return {a.sample: a.text for batch in answerer.answer(MIXED, {n: everything[n] for n in known}) for a in batch}, list(
            shapes
        )

    whole, batches = told(set())
    rest, again = told(known)
    assert rest == {sample: text for sample, text in whole.items() if sample not in known}
    assert set(again) <= set(batches)
    assert len(again) < len(batches) or known == {"0"} or known == {"3", "11", "12"}


def test_a_single_prompt_that_does_not_fit_is_an_error(model) -> None:
    family = watched(model)
    family.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        answers(family, build("vanilla", {}), None, 4)


def test_another_failure_of_the_device_is_not_tried_again(model) -> None:
    family = watched(model)
    family.refusal = torch.AcceleratorError("CUDA error: device-side assert triggered")
    answerer = Answerer(pipeline(family, build("vanilla", {}), lambda n: None), 4)
    with pytest.raises(torch.AcceleratorError):
        list(answerer.answer(MIXED))
    assert answerer.smallest == 4


def test_answers_end_at_the_first_stop_string(model) -> None:
    whole = answers(model, build("vanilla", {}), None, 1, [question(0, [0], 12)])["0"].text
    stop = whole[3]
    cut = answers(model, build("vanilla", {}), None, 1, [question(0, [0], 12, (stop,))])["0"].text
    assert cut == whole.split(stop)[0].strip()


def test_a_picture_is_named_by_its_content() -> None:
    assert image_name(PICTURES[0]) == image_name(PICTURES[0].copy())
    assert len({image_name(p) for p in PICTURES}) == len(PICTURES)
    flat = Image.new("RGB", (4, 9))
    assert image_name(flat) != image_name(flat.resize((9, 4)))


def test_palettes_do_not_hide_the_content_of_a_picture() -> None:
    red, blue = (Image.new("P", (4, 4)) for _ in range(2))
    red.putpalette([255, 0, 0])
    blue.putpalette([0, 0, 255])
    assert red.tobytes() == blue.tobytes()
    assert image_name(red) != image_name(blue)
    assert image_name(red) == image_name(red.convert("RGB"))
