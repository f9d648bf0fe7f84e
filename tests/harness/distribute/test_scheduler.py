"""The scheduler alone, with workers that are scripted: everything is done once, whoever dies, comes or is slow."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from vtpbench.harness.distribute.messages import AskPart, CloseSweep, MeasureCell, OpenSweep, Work
from vtpbench.harness.distribute.parts import Part
from vtpbench.harness.distribute.scheduler import TRIES, Scheduler
from vtpbench.harness.distribute.shared_sweep import PART_S, SHORTEST_S, SharedSweep
from vtpbench.harness.records.cell import Answer
from vtpbench.harness.records.outcome import Swept
from vtpbench.harness.records.record import BatchInfo

WINDOW = 4


def shared(label: str, questions: int, rows: int = 2, model: str = "m", known: int = 0) -> SharedSweep:
    cells = tuple(f"{label}-{row}" for row in range(rows))
    return SharedSweep(cells, model, {cell: {str(n): answer(n) for n in range(known)} for cell in cells}, rows * questions)


def answer(n: int) -> Answer:
    return Answer(str(n), "yes", (), (), ())


class Workers:
    """Scripted workers on a scheduler: they answer, and die as the draw has it."""

    def __init__(self, sweeps: dict[str, tuple[SharedSweep, int]], seed: int, deaths: int, has_scorers: bool = False) -> None:
        self.sizes = {sweep.cells: questions for sweep, questions in sweeps.values()}
        self.scheduler = Scheduler((sweep for sweep, _ in sweeps.values()), clock=self.time, has_scorers=has_scorers)
        self.has_scorers, self.scored, self.refused = has_scorers, Counter[str](), set[str]()
        self.now = 0.0
        self.draw, self.deaths = random.Random(seed), deaths
        self.answers: Counter[tuple[str, str]] = Counter()
        self.measured: Counter[str] = Counter()
        self.at: dict[int, tuple[Work, tuple[str, ...]]] = {}
        self.sweep_of: dict[int, tuple[str, ...]] = {}
        self.next_id = 0
        self.scoring: str | None = None

    def time(self) -> float:
        self.now += self.draw.choice([0.1, 40.0])  # so that windows are shared whole and by rows
        return self.now

    def play(self, workers: int) -> None:
        alive = [self.hire() for _ in range(workers)]
        while not self.scheduler.finished:
            if self.has_scorers and self.draw.random() < 0.3:
                self.score()
            for worker in alive:
                if worker not in self.at and (work := self.scheduler.next(worker, len(alive))) is not None:
                    self.at[worker] = work, self.sweep_of.get(worker, ())
            if not self.at and self.has_scorers:
                continue  # the cell that is left is being scored
            assert self.at, "somebody works as long as something is left"
            worker = self.draw.choice(sorted(self.at))
            if self.deaths and self.draw.random() < 0.2:
                self.deaths -= 1
                self.tell_some(worker, self.at.pop(worker)[0])
                self.scheduler.lost(worker, "killed")
                alive[alive.index(worker)] = self.hire()
            else:
                self.finish(worker, self.at.pop(worker)[0])

    def score(self) -> None:
        """Begin with a cell, or end one."""
        if self.scoring is None:
            found = self.scheduler.next_to_score()
            self.scoring = None if found is None else found[0]
            return
        done = self.draw.random() < 0.5
        self.scheduler.scored(self.scoring, done)
        self.measured[self.scoring] += done
        self.scored[self.scoring] += done
        if not done:
            self.refused.add(self.scoring)
        self.scoring = None

    def hire(self) -> int:
        self.next_id += 1
        return self.next_id

    def questions(self, worker: int, work: AskPart) -> list[tuple[str, int]]:
        part = work.part
        assert set(part.cells) <= set(self.sweep_of[worker])
        return [(c, n) for c in part.cells for n in range(part.start, part.stop) if str(n) not in work.known.get(c, {})]

    def tell(self, worker: int, cell: str, n: int) -> None:
        self.answers[cell, str(n)] += 1
        self.scheduler.answered(worker, cell, [answer(n)])

    def tell_some(self, worker: int, work: Work) -> None:
        if isinstance(work, AskPart):
            asked = self.questions(worker, work)
            for cell, n in asked[: self.draw.randrange(len(asked) + 1)]:
                self.tell(worker, cell, n)
        self.sweep_of.pop(worker, None)

    def finish(self, worker: int, work: Work) -> None:
        if isinstance(work, OpenSweep):
            self.sweep_of[worker] = work.cells
            self.scheduler.opened(worker, [str(n) for n in range(self.sizes[work.cells])], WINDOW)
        elif isinstance(work, AskPart):
            assert work.part.start % WINDOW == 0, "parts are whole windows"
            for cell, n in self.questions(worker, work):
                self.tell(worker, cell, n)
            self.scheduler.part_done(worker)
        elif isinstance(work, CloseSweep):
            cost = Swept(1.0, BatchInfo(requested=WINDOW, smallest=WINDOW))
            self.scheduler.closed(worker, dict.fromkeys(self.sweep_of.pop(worker), cost))
        elif isinstance(work, MeasureCell):
            self.measured[work.cell] += 1
            self.scheduler.measured(worker, work.cell)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("workers", [1, 3, 8])
def test_every_question_is_answered_once_and_every_cell_measured_once(seed: int, workers: int) -> None:
    sweeps = {"a": (shared("a", 41), 41), "b": (shared("b", 7, model="n"), 7), "c": (shared("c", 90, rows=1), 90)}
    played = Workers(sweeps, seed, deaths=0)
    played.play(workers)
    assert played.measured == dict.fromkeys([cell for sweep, _ in sweeps.values() for cell in sweep.cells], 1)
    assert played.answers == {(cell, str(n)): 1 for sweep, size in sweeps.values() for cell in sweep.cells for n in range(size)}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("deaths", [0, 12])
def test_a_cell_is_scored_once_by_a_worker_or_beside_it(seed: int, deaths: int) -> None:
    sweeps = {"a": (shared("a", 41, rows=6), 41), "b": (shared("b", 30, rows=6, model="n"), 30)}
    played = Workers(sweeps, seed, deaths, has_scorers=True)
    played.play(2)
    cells = {cell for sweep, _ in sweeps.values() for cell in sweep.cells}
    assert set(played.measured) - {cell for cell, n in played.measured.items() if n == 0} | set(played.scheduler.failed) == cells
    assert max(played.measured.values()) == 1
    assert played.refused.isdisjoint(cell for cell, n in played.scored.items() if n), "what could not be scored, workers measure"


def test_workers_ask_while_others_score_and_score_when_there_is_nothing_to_ask() -> None:
    first, second = shared("a", WINDOW), shared("b", 1)
    scheduler = Scheduler([first, second], has_scorers=True)
    assert scheduler.next(0) == OpenSweep(first.cells)
    scheduler.opened(0, [str(n) for n in range(WINDOW)], WINDOW)
    while isinstance(scheduler.next(0), AskPart):
        assert scheduler.next_to_score() is None, "not all of its answers are there"
        scheduler.part_done(0)
    cost = Swept(1.0, BatchInfo(requested=WINDOW, smallest=WINDOW))
    scheduler.closed(0, dict.fromkeys(first.cells, cost))
    assert scheduler.next_to_score() == ("a-0", cost)
    assert scheduler.next(0) == OpenSweep(second.cells)
    assert scheduler.next(1) == OpenSweep(second.cells)
    scheduler.closed(0, {})
    scheduler.scored("a-0", done=False)
    assert scheduler.next(0) == MeasureCell("a-0", {}, cost), "nobody else can"
    scheduler.closed(1, {})
    assert [scheduler.next(worker) for worker in (1, 2, 3)] == [
        MeasureCell("b-0", {}, None),
        MeasureCell("b-1", {}, None),
        MeasureCell("a-1", {}, cost),
    ]


@pytest.mark.parametrize("seed", range(40))
def test_no_death_loses_or_doubles_an_answer(seed: int) -> None:
    sweeps = {"a": (shared("a", 200), 200), "b": (shared("b", 90), 90)}
    played = Workers(sweeps, seed, deaths=12)
    played.play(4)
    given_up = set(played.scheduler.failed)
    assert set(played.measured) | given_up == {cell for sweep, _ in sweeps.values() for cell in sweep.cells}
    assert set(played.measured.values()) <= {1}
    assert max(played.answers.values()) == 1
    for sweep, size in sweeps.values():
        whole = [cell for cell in sweep.cells if cell not in given_up]
        assert all(played.answers[cell, str(n)] == 1 for cell in whole for n in range(size))


def test_what_is_on_disk_is_not_asked_again() -> None:
    played = Workers({"a": (shared("a", 40, known=22), 40)}, 0, deaths=0)
    played.play(2)
    assert {int(sample) for _, sample in played.answers} == set(range(22, 40)), (
        "the window of 20 to 23 is asked, its known are not told"
    )


def test_what_kills_its_worker_three_times_fails_its_cells_and_no_other() -> None:
    bad, good = shared("bad", 400), shared("good", 8)
    scheduler = Scheduler([bad, good])
    for worker in range(TRIES):
        assert isinstance(scheduler.next(worker), OpenSweep)
        scheduler.opened(worker, [str(n) for n in range(400)], WINDOW)
        assert scheduler.next(worker) == AskPart(Part(0, WINDOW, bad.cells[:1]), {bad.cells[0]: {}})
        scheduler.lost(worker, "out of memory")
    assert set(scheduler.failed) == set(bad.cells)
    assert all("questions 0 to 3 died 3 times: out of memory" in reason for reason in scheduler.failed.values())
    played = Workers({"good": (good, 8)}, 0, deaths=0)
    played.scheduler = scheduler
    played.next_id = TRIES
    played.play(1)
    assert set(played.measured) == set(good.cells)


def test_deaths_at_opening_count_only_while_nobody_has_opened_the_sweep() -> None:
    scheduler = Scheduler([shared("a", 400)])
    for worker in range(TRIES - 1):
        assert isinstance(scheduler.next(worker), OpenSweep)
        scheduler.lost(worker, "killed")
    opened = scheduler.next("able")
    assert isinstance(opened, OpenSweep)
    scheduler.opened("able", [str(n) for n in range(400)], WINDOW)
    for worker in range(TRIES - 1):
        assert isinstance(scheduler.next(worker), OpenSweep)
        scheduler.lost(worker, "killed")
    assert not scheduler.failed, "four deaths in a long run, each of another cause"
    for worker in range(TRIES):
        scheduler.next(worker)
        scheduler.lost(worker, "out of memory")
    assert set(scheduler.failed) == set(opened.cells)


def test_each_worker_keeps_to_the_rows_of_its_window_until_none_is_whole() -> None:
    now = [0.0]
    scheduler = Scheduler([shared("a", 3 * WINDOW, rows=8)], lambda: now[0])
    for worker in (0, 1):
        scheduler.next(worker, 2)
        scheduler.opened(worker, [str(n) for n in range(3 * WINDOW)], WINDOW)
    asked: dict[int, list[Part]] = {0: [], 1: []}
    at: dict[int, Work | None] = {worker: scheduler.next(worker, 2) for worker in asked}
    while any(isinstance(work, AskPart) for work in at.values()):
        now[0] += 60.0  # a window of all rows takes long
        for worker, work in at.items():
            if isinstance(work, AskPart):
                asked[worker].append(work.part)
                scheduler.part_done(worker)
        at = {worker: scheduler.next(worker, 2) for worker, work in at.items() if isinstance(work, AskPart)}
    windows = {worker: list(dict.fromkeys(part.start for part in parts)) for worker, parts in asked.items()}
    assert windows == {0: [0, 2 * WINDOW], 1: [WINDOW, 2 * WINDOW]}, "its own first, the last one together"


def test_what_was_known_is_no_part_of_the_speed() -> None:
    now = [0.0]
    sweep = shared("a", 100 * WINDOW, rows=1, known=WINDOW - 1)
    scheduler = Scheduler([sweep], lambda: now[0])
    scheduler.next(0)
    scheduler.opened(0, [str(n) for n in range(100 * WINDOW)], WINDOW)
    work = scheduler.next(0)
    assert isinstance(work, AskPart)
    assert work.asked == 1
    now[0] += 10.0
    scheduler.part_done(0)
    assert sweep.speed == 0.1


def test_a_sweep_that_cannot_be_opened_leaves_its_cells_to_say_why() -> None:
    scheduler = Scheduler([shared("a", 8)])
    assert isinstance(scheduler.next(0), OpenSweep)
    scheduler.closed(0, {})
    assert scheduler.next(0) == MeasureCell("a-0", {}, None)


def test_a_worker_that_cannot_open_what_others_could_leaves_it_to_them_and_measures_its_cells_where_there_are_none() -> None:
    sweep = shared("a", 8)
    scheduler = Scheduler([sweep])
    for worker in ("able", "unable"):
        assert isinstance(scheduler.next(worker, 2), OpenSweep)
    scheduler.opened("able", [str(n) for n in range(8)], WINDOW)
    assert isinstance(scheduler.next("able", 2), AskPart)
    scheduler.closed("unable", {})
    assert sweep.remaining, "what is left is the other's"
    assert scheduler.next("unable", 2) is None, "it does not try again and again"
    scheduler.lost("able", "killed")
    assert isinstance(scheduler.next("unable", 1), OpenSweep), "nobody else is left"
    scheduler.closed("unable", {})
    assert scheduler.next("unable", 1) == MeasureCell("a-0", {}, None)


def test_a_worker_stays_with_its_model_and_begins_with_the_longest() -> None:
    scheduler = Scheduler([shared("a", 8, model="m"), shared("b", 80, model="n"), shared("c", 40, model="n")])
    assert scheduler.next(0) == OpenSweep(("b-0", "b-1"))
    scheduler.closed(0, {})
    for cell in ("b-0", "b-1"):
        assert scheduler.next(0) == MeasureCell(cell, {}, None)
        scheduler.measured(0, cell)
    assert scheduler.next(0) == OpenSweep(("c-0", "c-1"))
    assert scheduler.next(1) == OpenSweep(("c-0", "c-1")), "the half of c that is another's is longer than a"


@pytest.mark.parametrize("rows", [1, 2, 7, 46])
@pytest.mark.parametrize("size", [1, 4, 9, 41])
@pytest.mark.parametrize("wanted", [0.5, 3, 8, 50, 1e9])
def test_a_cut_part_is_whole_windows_of_all_rows_or_one_window_of_some(rows: int, size: int, wanted: float) -> None:
    whole = Part(4, 4 + size, tuple(map(str, range(rows))))
    left, asked = [whole], []
    while left:
        first, rest = left.pop(0).cut(wanted, WINDOW)
        assert first.start % WINDOW == 0
        assert first.stop % WINDOW == 0 or first.stop == whole.stop
        assert first.stop - first.start <= WINDOW or len(first.cells) == rows, "only single windows are shared by rows"
        assert first.answers <= max(wanted, WINDOW), "no longer than it should be, but for one row of one window"
        left[:0] = rest
        asked += [(cell, n) for cell in first.cells for n in range(first.start, first.stop)]
    assert sorted(asked) == sorted((cell, n) for cell in whole.cells for n in range(whole.start, whole.stop))


def test_a_window_that_takes_minutes_is_shared_by_rows_so_that_a_part_takes_one() -> None:
    now = [0.0]
    sweep = shared("a", 4000, rows=46)
    scheduler = Scheduler([sweep], lambda: now[0])
    scheduler.next(0, 2)
    scheduler.opened(0, [str(n) for n in range(4000)], WINDOW)
    work, answers_s = scheduler.next(0, 2), 1.0
    took = []
    while isinstance(work, AskPart):
        took.append(work.part.answers / answers_s)
        now[0] += took[-1]
        scheduler.part_done(0)
        work = scheduler.next(0, 2)
    assert took[0] == WINDOW, "nobody knows yet how long it takes: one window of one row"
    assert all(SHORTEST_S / 2 <= seconds <= PART_S for seconds in took[1:])
    assert sum(took) == 46 * 4000
    assert sum(took) / len(took) > PART_S / 2, "and no shorter than it need be: every part encodes its pictures anew"
