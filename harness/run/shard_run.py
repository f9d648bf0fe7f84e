"""Answer one shard of a suite: nothing is scored here, answers wait in journals until `vtpbench merge` joins the shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from vtpbench.harness.host.durations import duration
from vtpbench.harness.host.files import StorageError, prepare
from vtpbench.harness.records.cell import Cell
from vtpbench.harness.records.outcome import Outcome
from vtpbench.harness.records.shard_note import ShardNote, read_note, write_note
from vtpbench.harness.run.answer_faults import trusted
from vtpbench.harness.run.batch_size import WINDOW
from vtpbench.harness.run.loop import RunContext, by_model, grouped_by_benchmark
from vtpbench.harness.run.progress import headline
from vtpbench.harness.run.shard import Shard
from vtpbench.harness.run.sweep import SweepShare
from vtpbench.harness.run.watch import RunWatch, questions_of
from vtpbench.harness.run.watched_progress import WatchedProgress
from vtpbench.pruners.errors import UserError

if TYPE_CHECKING:
    from vtpbench.harness.run.questions import Question


@dataclass(frozen=True)
class ShardSummary:
    """How a shard went: its answers, and rows that have not all of them, with a reason."""

    shard: Shard
    folder: Path
    answers: int
    rows: int
    incomplete: dict[str, str]
    seconds: float

    @property
    def exit_code(self) -> int:
        """1 if answers are missing."""
        return 1 if self.incomplete else 0

    def lines(self) -> list[str]:
        """Say at the end what is missing, then the counts."""
        missing = [f"incomplete: {row}: {reason}" for row, reason in self.incomplete.items()]
        said = f"shard {self.shard}: {self.rows} rows, {self.answers:,} answers in {self.folder}; {duration(self.seconds)}"
        return [*missing, f"{said}; vtpbench merge joins the shards"]


def run_shard(cells: Sequence[Cell], setting: RunContext, shard: Shard) -> ShardSummary:
    """Ask a shard's part of the questions of cells, and keep the answers in the folder of `setting`, which is the shard's.

    Raises `UserError` as a run does, and where the folder holds answers of another kind of device.
    """
    from vtpbench.harness.suite.task_data import fetch

    start, store = perf_counter(), setting.store
    prepare(store.folder / "journal")
    prepare(store.folder / "locks")
    note = ShardNote(suite=setting.suite, of=shard.of, parts=(shard.part,), whole=(), device=setting.environment.device_kind)
    read_note(store.folder)  # a damaged one is not replaced in silence
    store.refuse_other_device(cells, note.device)
    write_note(store.folder, note)
    for label in dict.fromkeys(cell.benchmark.label for cell in cells):
        fetch(setting.benchmarks[label])
    there = {cell.id: store.kept_answers(cell.id) for cell in cells}
    whole = questions_of(cells, setting.benchmarks)
    expected = {cell: None if n is None else ceil(n / shard.of) for cell, n in whole.items()}  # until they are read
    watch = RunWatch(store.folder, expected, there, str(shard))
    progress = WatchedProgress(setting.progress, watch, setting.environment.device)
    asker = _ShardAsker(setting, shard, progress)
    with setting.progress, watch, ExitStack() as leases:
        progress.start(cells)
        mine = [cell for cell in cells if leases.enter_context(store.lease(cell))]
        if len(mine) < len(cells):
            raise UserError(f"another run is at shard {shard} in {store.folder}; `vtpbench status {store.folder}` shows it")
        for group in grouped_by_benchmark(by_model(cells)):
            asker.ask(group)
            for cell in group:
                watch.end(cell.id, str(cell), asker.incomplete.get(str(cell)))
    if not asker.incomplete:
        write_note(store.folder, note.model_copy(update={"whole": (shard.part,)}))
    answers = sum(store.kept_answers(cell.id) for cell in cells)
    return ShardSummary(shard, store.folder, answers, len(cells), asker.incomplete, perf_counter() - start)


class _ShardAsker:
    """Asks the questions of a shard, benchmark by benchmark."""

    def __init__(self, setting: RunContext, shard: Shard, progress: WatchedProgress) -> None:
        self.incomplete: dict[str, str] = {}
        self._setting, self._shard, self._progress = setting, shard, progress
        self._sweeper = setting.sweeper()
        self._turns = {label: turn for turn, label in enumerate(setting.benchmarks)}
        self._opened = False

    def ask(self, cells: Sequence[Cell]) -> None:
        """Ask cells of one model and benchmark; what goes wrong is said, and told in full when the cell is scored."""
        for cell in cells:
            self._setting.store.forget_log(cell.id)
        engine = self._sweeper.open(cells[0], StorageError if self._opened else UserError)
        if isinstance(engine, Outcome):
            self._miss(cells, headline(engine.reason))
            return
        self._opened = True
        self._progress.begin_sweep(cells)
        asked: list[str] = []

        def shares(questions: Sequence[Question]) -> Iterator[SweepShare]:
            window = WINDOW * cells[0].batch_size
            part = self._shard.questions(len(questions), window, self._turns[cells[0].benchmark.label])
            asked.extend(question.sample for question in questions[part])
            if asked:
                yield SweepShare(part)

        spent = self._sweeper.sweep(engine, cells, self._advance, shares)
        if isinstance(spent, Outcome):
            self._miss(cells, headline(spent.reason))
            return
        able = [cell for cell in cells if cell.id in spent]  # the others cannot be asked, which they say when they are scored
        have = [len(trusted(self._setting.store.journal(cell)).keys() & set(asked)) for cell in able]
        for cell, n in zip(able, have, strict=True):
            if n < max(have) or (asked and not n):  # questions that cannot be asked are left out of all rows alike
                self._miss([cell], f"{n} of {len(asked)} answers; the run on the joined shards says why")

    def _miss(self, cells: Sequence[Cell], reason: str) -> None:
        self.incomplete.update((str(cell), reason) for cell in cells)
        for cell in cells:
            self._progress.note(f"{cell}: {reason}")

    def _advance(self, done: int, total: int) -> None:
        self._progress.advance(done, total)
        self._setting.stop.check()
