"""One pass over the pictures for many rows: each row answers as it does alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.text_tower import ClipTextTower
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.batch import ImageGroup, VisionTokens
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import Schedule
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.bad_questions import BadQuestion, BadQuestions
from vtpbench.harness.run.batch_size import WINDOW
from vtpbench.harness.run.questions import Question
from vtpbench.harness.run.sweep import AHEAD, SweepRow, WindowReader, sweep
from vtpbench.pruners.base import ModelShape, Pruner, TokenView
from vtpbench.pruners.errors import Impossible
from vtpbench.pruners.registry import BUILT_IN, build, find
from vtpbench.pruners.vanilla import Vanilla

PICTURES = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (30 + n, 40, 3), dtype=np.uint8)) for n in range(5)]
BATCH = 2
pytestmark = pytest.mark.usefixtures("always_shared")


def question(n: int, pictures: Sequence[int]) -> Question:
    return Question(str(n), "Is there a thing? " * (1 + n % 3), lambda: [PICTURES[p] for p in pictures], 4)


ASKED = [question(n, [[n // 3 % 5], [n // 3 % 5], [], [n // 3 % 5, (n + 1) % 5]][n % 4]) for n in range(18)]


class Kept:
    """A journal in memory."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}

    def add(self, answers: list[Answer]) -> None:
        assert not self.answers.keys() & {answer.sample for answer in answers}, "nothing is answered twice"
        self.answers.update((answer.sample, answer) for answer in answers)


def half(n: int) -> int:
    """Half of an image's tokens, in such a number that five tiles can share them."""
    return 8 if n == 16 else max(5, n // 2 // 5 * 5)


def answerer(model: Family, pruner: Pruner) -> Answerer:
    return Answerer(Pipeline(model, pruner, (lambda n: None) if isinstance(pruner, Vanilla) else half, share_prefix=True), BATCH)


class Row(SweepRow):
    """A row that keeps its answers in memory."""

    kept: Kept

    def __init__(self, model: Family, pruner: Pruner, known: dict[str, Answer] | None = None) -> None:
        object.__setattr__(self, "kept", Kept())  # the class is frozen
        super().__init__(answerer(model, pruner), known or {}, self.kept.add)


def swept(model: Family, rows: Sequence[SweepRow], asked: Sequence[Question] = ASKED) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    sweep(rows, asked, WindowReader(model, BadQuestions(model)), lambda done, of: seen.append((done, of)))
    return seen


def alone(model: Family, pruner: Pruner, known: dict[str, Answer] | None = None) -> dict[str, Answer]:
    found = answerer(model, pruner).answer(ASKED, known or {})
    return {answer.sample: answer for answers in found for answer in answers}


def possible(model: Family) -> dict[str, tuple[Pruner, dict[str, Answer]]]:
    """Built-in pruners that this model can take, with options where its few layers ask for them, and their answers alone."""
    found = {}
    for name in BUILT_IN:
        pruner = build(name, {"layer": 1} if name in ("fastv", "dart") else {})
        try:
            found[name] = pruner, alone(model, pruner)
        except Impossible:
            continue
    return found


@pytest.mark.parametrize("family", TINY)
def test_every_pruner_answers_in_a_sweep_as_it_does_alone(family: str) -> None:
    model = TINY[family]()
    pruners = possible(model)
    assert len(pruners) >= 15, sorted(pruners)
    rows = {name: Row(model, pruner) for name, (pruner, _) in pruners.items()}
    seen = swept(model, list(rows.values()))
    for name, (_, answers) in pruners.items():
        assert rows[name].kept.answers == answers, name
    total = len(rows) * len(ASKED)
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)


NESTED = [name for name in BUILT_IN if find(name).load().nested]


@pytest.mark.parametrize("family", ["llava_next", "qwen2_5_vl"])
def test_rows_of_several_budgets_are_put_in_order_once_and_keep_what_each_keeps_alone(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, orders, asked = TINY[family](), list[tuple[str, int]](), ASKED[: WINDOW * BATCH + 2]
    pruners = {name: build(name, {}) for name in NESTED if family.startswith("llava") or name != "cdpruner"}
    for pruner in pruners.values():
        plain = type(pruner).apply_order

        def counted(self: Pruner, view: TokenView, plain: Callable[[Pruner, TokenView], Tensor] = plain) -> Tensor:
            orders.append((type(self).__name__, view.cut.keep))
            return plain(self, view)

        monkeypatch.setattr(type(pruner), "apply_order", counted)

    def watched(pruner: Pruner, eighths: int) -> tuple[Answerer, list[tuple[tuple[str, ...], list[list[int]]]]]:
        seen: list[tuple[tuple[str, ...], list[list[int]]]] = []
        own = Pipeline(
            model, pruner, lambda n: n * eighths // 8 // 5 * 5, lambda view, kept: seen.append((view.keys, kept.index.tolist()))
        )
        return Answerer(replace(own, share_prefix=True), BATCH), seen

    together: dict[tuple[str, int], tuple[Answerer, list[tuple[tuple[str, ...], list[list[int]]]], Kept]] = {}
    for eighths in (3, 6, 4):
        for name, pruner in pruners.items():
            together[name, eighths] = *watched(pruner, eighths), Kept()
    swept(model, [SweepRow(answerer, {}, kept.add) for answerer, _, kept in together.values()], asked)
    once = len(orders)
    for (name, eighths), (_, seen, kept) in together.items():
        answerer, expected = watched(pruners[name], eighths)
        answers = {answer.sample: answer for part in answerer.answer(asked) for answer in part}
        assert (seen, kept.answers) == (expected, answers), (name, eighths)
    assert len(orders) - once == 3 * once, "alone, each budget is asked anew"


def test_questions_are_tokenized_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenized = TINY["llava"](), list[str]()
    real = type(model).token_ids
    monkeypatch.setattr(type(model), "token_ids", lambda own, prompt: (tokenized.append(prompt), real(own, prompt))[1])
    swept(model, [Row(model, build(name, {})) for name in ("vanilla", "random", "visionzip")])
    assert len(tokenized) == len(set(tokenized))


def test_questions_are_embedded_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = TINY["llava"](), list[list[str]]()
    plain = ClipTextTower._embed
    monkeypatch.setattr(ClipTextTower, "_embed", lambda self, asked: texts.append(asked) or plain(self, asked))
    pruners = [build("cdpruner", {}), build("cdpruner", {"relevance_sign": 1}), build("trim", {})]
    rows = [Row(model, pruner) for pruner in pruners]
    swept(model, rows)
    shared = [*texts]
    for row, pruner in zip(rows, pruners, strict=True):
        texts.clear()
        assert row.kept.answers == alone(model, pruner)
        assert texts == shared, "window by window, what one row alone embeds"


@pytest.mark.parametrize("known", [{"0"}, {str(n) for n in range(9)}, {"3", "11", "12"}, {str(n) for n in range(18)}])
def test_a_resumed_sweep_answers_the_rest_as_an_undisturbed_one(known: set[str]) -> None:
    model = TINY["llava"]()
    pruners = {"random": build("random", {}), "visionzip": build("visionzip", {}), "vanilla": build("vanilla", {})}
    whole = {name: alone(model, pruner) for name, pruner in pruners.items()}
    rows = {
        name: Row(model, pruner, {n: whole[name][n] for n in known} if name != "vanilla" else {})
        for name, pruner in pruners.items()
    }
    swept(model, list(rows.values()))
    assert rows["vanilla"].kept.answers == whole["vanilla"]
    for name in ("random", "visionzip"):
        assert rows[name].kept.answers == {n: answer for n, answer in whole[name].items() if n not in known}


def test_what_stays_of_a_picture_does_not_depend_on_what_is_asked_or_on_the_question_before() -> None:
    model = TINY["llava"]()
    pipeline = Pipeline(model, build("random", {}), lambda n: 5)
    seen: list[tuple[tuple[str, ...], list[list[int]]]] = []
    watched = replace(pipeline, observer=lambda view, kept: seen.append((view.keys, kept.index.tolist())))
    list(Answerer(watched, BATCH).answer(ASKED))
    drawn: dict[str, list[int]] = {}
    for keys, index in seen:
        for key, places in zip(keys, index, strict=True):
            assert drawn.setdefault(key, places) == places
    assert len(drawn) == len(PICTURES)
    assert len({tuple(places) for places in drawn.values()}) > 1


def test_the_tower_runs_once_for_all_rows_that_leave_it_as_it_is() -> None:
    model, passes = TINY["llava"](), list[int]()
    plain = model.encode

    def encode(group: ImageGroup, schedule: Schedule) -> VisionTokens:
        passes.append(len(group.members))
        return plain(group, schedule)

    model.encode = encode  # type: ignore[method-assign] # counted, nothing else
    asked = [question(n, [n // 4]) for n in range(WINDOW * BATCH * 2)]
    names = ["vanilla", "random", "visionzip", "hiprune", "divprune", "fastervlm"]
    swept(model, [Row(model, build(name, {})) for name in names], asked)
    assert passes == [2, 2], "two windows of two pictures, once each"
    passes.clear()
    swept(model, [Row(model, build(name, {})) for name in ("vanilla", "random", "downsample", "tome", "text-only")], asked)
    assert sorted(passes) == [2] * 6, "what changes the tower's input or inside has passes of its own"


class Breaks(Pruner):
    """Breaks at the third picture that it is shown."""

    def __init__(self, error: BaseException) -> None:
        self.shown, self.error = 0, error

    def score(self, view: TokenView) -> torch.Tensor:
        self.shown += len(view.features)
        if self.shown > 2:
            raise self.error
        norms: torch.Tensor = view.features.norm(dim=-1)
        return norms


@pytest.mark.parametrize("error", [RuntimeError("what?"), SystemExit(0), Impossible("no")])
def test_a_row_that_breaks_keeps_its_answers_and_the_others_go_on(error: BaseException) -> None:
    model = TINY["llava"]()
    asked = [question(n, [n // 4]) for n in range(WINDOW * BATCH * 2)]
    broken, fine = Row(model, Breaks(error)), Row(model, build("random", {}))
    swept(model, [broken, fine], asked)
    assert len(broken.kept.answers) == WINDOW * BATCH
    assert len(fine.kept.answers) == len(asked)


def test_a_pruner_that_cannot_say_what_it_needs_is_left_to_its_own_turn() -> None:
    class Needy(Breaks):
        def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[object, ...]:  # type: ignore[override]
            raise ZeroDivisionError

    model = TINY["llava"]()
    broken, fine = Row(model, Needy(RuntimeError())), Row(model, build("random", {}))
    swept(model, [broken, fine])
    assert broken.kept.answers == {}
    assert fine.kept.answers == alone(model, build("random", {}))


def test_a_stop_by_the_user_ends_the_sweep() -> None:
    model = TINY["llava"]()
    with pytest.raises(KeyboardInterrupt):
        swept(model, [Row(model, Breaks(KeyboardInterrupt())), Row(model, build("random", {}))])


def test_no_more_windows_are_decoded_than_two_ahead() -> None:
    model, decoded, most = TINY["llava"](), list[int](), 0

    def ask(n: int) -> Question:
        return Question(str(n), "What?", lambda: decoded.append(n) or [PICTURES[n % 5]], 2)  # type: ignore[func-returns-value]

    class Watching(Kept):
        def add(self, answers: list[Answer]) -> None:
            nonlocal most
            super().add(answers)
            most = max(most, len(decoded) // (WINDOW * BATCH) - len(self.answers) // (WINDOW * BATCH))

    asked = [ask(n) for n in range(WINDOW * BATCH * 6)]
    journal = Watching()
    swept(model, [SweepRow(answerer(model, build("random", {})), {}, journal.add)], asked)
    assert sorted(decoded) == list(range(len(asked))), "each question's pictures are decoded once"
    assert most <= AHEAD + 1


def test_rows_that_are_asked_later_find_the_pictures_of_their_window_decoded() -> None:
    model, decoded = TINY["llava"](), list[int]()

    def ask(n: int) -> Question:
        return Question(str(n), "What?", lambda: decoded.append(n) or [PICTURES[n % 5]], 2)  # type: ignore[func-returns-value]

    window, other = ([ask(first + n) for n in range(WINDOW * BATCH)] for first in (0, 100))
    reader, rows = WindowReader(model, BadQuestions(model)), [Row(model, build("random", {})) for _ in range(3)]
    for asked, row in ((window, rows[0]), (window, rows[1]), (other, rows[2]), (window, rows[2])):
        sweep([row], asked, reader, lambda done, of: None)
    assert sorted(decoded) == sorted([*range(WINDOW * BATCH)] * 2 + [*range(100, 100 + WINDOW * BATCH)])
    assert rows[0].kept.answers == rows[1].kept.answers


def test_a_picture_that_cannot_be_decoded_is_named_and_what_came_before_is_kept() -> None:
    model = TINY["llava"]()

    def torn() -> list[Image.Image]:
        raise OSError("image file is truncated")

    asked = [question(n, [n // 4]) for n in range(WINDOW * BATCH)]
    asked.append(Question("bad", "Who?", torn, 2))
    kept = Row(model, build("random", {}))
    with pytest.raises(BadQuestion, match="question bad of the benchmark"):
        swept(model, [kept], asked)
    assert len(kept.kept.answers) == WINDOW * BATCH
