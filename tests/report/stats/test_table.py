"""Intervals, tests and marks in tables."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vtpbench.harness.records.record import Record
from vtpbench.pruners.errors import UserError
from vtpbench.report.formats.render import render
from vtpbench.report.stats.build import build
from vtpbench.report.tables.table import Table, TableRow

data = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "stats_data.py")))
IMAGES, QUESTIONS = 40, 5


class Measured:
    """Records and their samples: answers whose difficulty is the same to every pruner."""

    def __init__(self, record: Callable[..., Record]) -> None:
        self.record = record
        self.records: list[Record] = []
        self.frames: dict[str, pd.DataFrame] = {}

    def add(self, pruner: str, rate: float, *, benchmarks: Iterable[str] = ("A", "B"), luck: int = 0, **changes: object) -> None:
        for benchmark in benchmarks:
            hard = np.random.default_rng([ord(benchmark), luck]).random(IMAGES * QUESTIONS)
            scores = (hard < rate).astype(float)
            record = self.record(pruner, benchmark, 100 * scores.mean(), **changes)
            self.records.append(record)
            images = [f"{benchmark} {i % IMAGES}" for i in range(len(scores))]
            self.frames[record.cell_id] = data.scored(list(scores), images)

    def table(self, **choices: object) -> Table:
        (table,) = build(self.records, samples=lambda r: self.frames.get(r.cell_id), **choices)
        return table


@pytest.fixture
def measured(record) -> Measured:
    """Two good pruners that answer alike, and a bad one that is as good as random but right elsewhere."""
    found = Measured(record)
    for pruner, rate in (("vanilla", 0.9), ("good", 0.85), ("fine", 0.85), ("bad", 0.5)):
        found.add(pruner, rate)
    found.add("random", 0.52, luck=9)
    return found


def by_label(table: Table) -> dict[str, TableRow]:
    return {row.label: row for block in table.blocks for row in block.rows}


def test_relative_accuracies_and_averages_get_intervals(measured) -> None:
    rows = by_label(measured.table())
    for label in ("good", "bad", "random"):
        row = rows[label]
        low, high = row.average_interval
        assert low < row.average < high
        widths = [entry.interval[1] - entry.interval[0] for entry in row.entries]
        assert all(entry.interval[0] < entry.relative < entry.interval[1] for entry in row.entries)
        assert high - low < max(widths)  # two independent benchmarks tell more than one
        assert row.entries[0].score_interval == row.entries[0].cell_intervals[row.entries[0].records[0].cell_id].score


def test_vanilla_is_100_per_cent_by_definition(measured) -> None:
    row = by_label(measured.table())["vanilla"]
    assert (row.average_interval, row.entries[0].interval, row.notes) == (None, None, ())
    low, high = row.entries[0].score_interval
    assert low < row.entries[0].score < high


def test_rows_like_the_best_are_tied_and_rows_like_random_are_named(measured) -> None:
    rows = by_label(measured.table())
    assert {label: row.tied for label, row in rows.items()} == {
        "vanilla": False, "bad": False, "random": False, "fine": False, "good": True,
    }  # fmt: skip
    assert rows["random"].p_value is None
    assert rows["good"].p_value == rows["fine"].p_value < 0.02
    assert rows["bad"].p_value > 0.05


def errors(measured: Measured) -> Measured:
    """Score the same answers by the share that is wrong."""
    found = Measured(measured.record)
    for record in measured.records:
        frame = measured.frames[record.cell_id]
        info = record.benchmark.model_copy(update={"metric": "error", "higher_is_better": False})
        made = record.model_copy(update={"benchmark": info, "score": 100 - record.score})
        found.records.append(made)
        found.frames[made.cell_id] = data.scored(list(1 - frame["score"]), list(frame["image"]), "error")
    return found


def test_where_less_is_better_the_best_ties_and_tests_are_those_of_fewer_errors(measured) -> None:
    table = errors(measured).table()
    rows, right = by_label(table), by_label(measured.table())
    assert rows["good"].average == rows["fine"].average > rows["bad"].average
    assert rows["vanilla"].average == 100
    for label, row in rows.items():
        for entry, vanilla in zip(row.entries, rows["vanilla"].entries, strict=True):
            assert entry.relative == pytest.approx(200 - 100 * entry.score / vanilla.score)
            assert entry.interval is None or entry.interval[0] < entry.relative < entry.interval[1]
        assert row.tied == right[label].tied
        p, same = row.p_value, right[label].p_value
        assert (p is None, (p or 0) < 0.05) == (same is None, (same or 0) < 0.05)
    text = render((table,), "markdown")
    assert " A ↓ |" in text
    assert "lower is better: relative accuracy is 200 - 100 x score / vanilla score, in %" in text
    assert r"A $\downarrow$" in render((table,), "latex")
    assert {cell["higher_is_better"] for cell in json.loads(render((table,), "json"))} == {False}
    assert "↓" not in render((measured.table(),), "markdown")


def test_any_row_or_the_best_can_be_the_reference(measured) -> None:
    rows = by_label(measured.table(reference="best"))
    assert rows["good"].p_value == 1
    assert rows["bad"].p_value < 0.02
    assert by_label(measured.table(reference="bad"))["random"].p_value > 0.05
    with pytest.raises(UserError, match=r"no row 'god' to test against; did you mean 'good'\?"):
        measured.table(reference="god")


def test_more_rows_make_a_difference_harder_to_claim_unless_they_err_alike(measured) -> None:
    measured.add("middling", 0.6)
    before = by_label(measured.table())["middling"].p_value
    for i in range(4):
        measured.add(f"copy {i}", 0.5)
    assert by_label(measured.table())["middling"].p_value == pytest.approx(before, rel=0.35)
    for i in range(10):
        measured.add(f"more {i}", 0.52, luck=20 + i)
    assert by_label(measured.table())["middling"].p_value > 1.5 * before


def test_on_each_benchmark_the_rows_like_the_best_are_tied(measured) -> None:
    rows = by_label(measured.table())
    assert [entry.tied for entry in rows["good"].entries] == [True, True]
    assert rows["fine"].entries[0].relative == rows["good"].entries[0].relative
    assert [entry.tied for entry in rows["bad"].entries] == [False, False]
    latex = render((measured.table(),), "latex")
    assert r"\textbf{84.5}" in latex
    assert "Bold: the best of its block, and what cannot be told apart from it; underlined: the best of the others." in latex


def test_tables_print_half_widths_and_marks(measured) -> None:
    table = measured.table()
    half = (by_label(table)["good"].average_interval[1] - by_label(table)["good"].average_interval[0]) / 2
    text = render((table,), "markdown")
    assert f" ± {half:.1f} %† |" in text
    assert " %‡ |" in text
    assert "- **Interval:** Avg ± half of its 95 % interval, vanilla's error included" in text
    assert "- **†:** cannot be told apart from the row of its block with the highest Avg" in text
    assert "- **‡:** cannot be told apart from random: the same test" in text
    latex = render((table,), "latex")
    assert rf" $\pm$ {half:.1f}\,\%$^\dagger$}} &" in latex
    assert r"\textbf{$^\ddagger$:}" in latex


def test_data_formats_give_the_intervals_of_each_cell(measured) -> None:
    table = measured.table()
    cells = {(c["label"], c["benchmark"]): c for c in json.loads(render((table,), "json"))}
    entry = by_label(table)["bad"].entries[0]
    cell = cells["bad", "A"]
    assert (cell["relative_low"], cell["relative_high"]) == entry.interval
    assert (cell["score_low"], cell["score_high"]) == entry.score_interval
    assert cells["vanilla", "A"]["relative_low"] is None
    assert cells["vanilla", "A"]["score_low"] < 90


def test_seeds_share_an_interval_and_their_spread_stands_apart(measured) -> None:
    for seed in (1, 2):
        measured.add("random", 0.52, luck=seed, seed=seed)
    table = measured.table()
    row = by_label(table)["random"]
    assert row.average_spread is not None
    assert row.average_interval[0] < row.average < row.average_interval[1]
    own = row.entries[0].cell_intervals
    assert len({cell.relative for cell in own.values()}) == 3
    text = render((table,), "markdown")
    assert f" %<br>seeds ± {row.average_spread:.1f} |" in text
    assert "(± of a score, and below Avg: standard deviation over seeds)" in text


def test_what_has_no_samples_or_others_than_vanilla_has_no_interval_and_says_why(measured) -> None:
    fine, bad = (next(r for r in measured.records if r.pruner.name == name) for name in ("fine", "bad"))
    del measured.frames[fine.cell_id]
    frame = measured.frames[bad.cell_id]
    measured.frames[bad.cell_id] = frame.assign(image=frame["image"].to_numpy()[::-1])
    table = measured.table()
    row = by_label(table)["fine"]
    assert (row.average_interval, row.p_value, row.tied) == (None, None, False)
    assert row.entries[1].interval is not None
    assert [table.notes[row.notes[0] - 1]] == ["no interval: A: no per-sample table"]
    assert table.notes[by_label(table)["bad"].notes[0] - 1] == "no interval: A: its samples are not vanilla's"
    assert f"{row.average:.1f} %¹" in render((table,), "markdown") or f"{row.average:.1f} %²" in render((table,), "markdown")


def test_photographs_that_two_benchmarks_store_otherwise_are_resampled_together(measured) -> None:
    """The second benchmark asks the same questions about the same pictures, whose bytes are others."""
    apart = by_label(measured.table())["bad"]
    looks = [int(look) for look in np.random.default_rng(0).integers(0, 2**63, IMAGES)]
    for record in measured.records:
        frame = measured.frames[record.cell_id]
        twin = next(r for r in measured.records if r.pruner == record.pruner and r.benchmark.label == "A")
        numbers = frame["image"].str.split().str[1].astype(int)
        hashes = [f"{looks[n] ^ (n % 8 if record.benchmark.label == 'B' else 0):016x}" for n in numbers]
        score = measured.frames[twin.cell_id]["score"]
        measured.frames[record.cell_id] = frame.assign(perceptual_hash=hashes, score=score)
        measured.records[measured.records.index(record)] = record.model_copy(update={"score": twin.score})
    shared = by_label(measured.table())["bad"]
    one = shared.entries[0].interval[1] - shared.entries[0].interval[0]
    assert shared.average_interval[1] - shared.average_interval[0] == pytest.approx(one, rel=0.06), (
        "twice the same tells nothing new"
    )
    assert apart.average_interval[1] - apart.average_interval[0] < 0.8 * one
    for record in measured.records:
        if record.pruner.name in ("vanilla", "good"):  # of an earlier version, as `read_table` gives them
            measured.frames[record.cell_id] = measured.frames[record.cell_id].assign(perceptual_hash="")
    assert by_label(measured.table())["bad"] == shared, "whichever of the tables have hashes"


def test_a_vanilla_near_zero_is_no_denominator_for_intervals(record) -> None:
    found = Measured(record)
    found.add("vanilla", 0.01, benchmarks="C")
    found.add("good", 0.01, benchmarks="C")
    (row,) = (row for label, row in by_label(found.table()).items() if label == "good")
    assert row.average_interval is None


def test_rows_are_compared_on_the_benchmarks_that_both_have(measured) -> None:
    measured.add("half", 0.5, benchmarks="A")
    rows = by_label(measured.table())
    assert rows["half"].n == 1
    assert rows["half"].p_value is not None
    assert rows["good"].tied, "a row with fewer benchmarks is never the best"


def test_intervals_depend_neither_on_other_rows_nor_on_order(measured) -> None:
    whole = by_label(measured.table())["good"]
    random.Random(1).shuffle(measured.records)
    shuffled = by_label(measured.table())["good"]
    measured.records = [r for r in measured.records if r.pruner.name in ("vanilla", "good")]
    alone = by_label(measured.table())["good"]
    assert shuffled.average_interval == pytest.approx(whole.average_interval, rel=1e-12)
    assert alone.average_interval == pytest.approx(whole.average_interval, rel=1e-12)


def test_intervals_are_the_same_of_the_same_answers_under_other_ids(measured) -> None:
    """Another version of the code gives cells other ids."""
    before = [[row.average_interval for row in block.rows] for block in measured.table().blocks]
    ids = {record.cell_id: f"{n:016x}" for n, record in enumerate(measured.records)}
    measured.records = [record.model_copy(update={"cell_id": ids[record.cell_id]}) for record in measured.records]
    measured.frames = {ids[name]: frame for name, frame in measured.frames.items()}
    assert [[row.average_interval for row in block.rows] for block in measured.table().blocks] == before


def test_records_without_any_samples_give_the_plain_table_and_a_note(matrix) -> None:
    (plain,), (asked,) = build(matrix), build(matrix, samples=lambda record: None)
    assert asked.footer == plain.footer
    assert [row.average for row in by_label(asked).values()] == [row.average for row in by_label(plain).values()]
    assert any(note.startswith("no interval: ") for note in asked.notes)
