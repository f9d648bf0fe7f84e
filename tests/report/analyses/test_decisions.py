"""Decisions about rows."""

from __future__ import annotations

import json
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from vtpbench.pruners.errors import UserError
from vtpbench.report.analyses.decisions import decide_tables, read_margin
from vtpbench.report.analyses.decisions_sheet import FIELDS, decisions_sheet
from vtpbench.report.formats.sheet import render_sheet
from vtpbench.report.stats.smallest import smallest_difference

TABLE = run_path(str(Path(__file__).parents[1] / "stats" / "test_table.py"))
Measured, IMAGES = TABLE["Measured"], TABLE["IMAGES"]


@pytest.fixture
def measured(record):
    found = Measured(record)
    for pruner, rate in (("vanilla", 0.9), ("same", 0.9), ("good", 0.86), ("bad", 0.5)):
        found.add(pruner, rate)
    found.add("half", 0.9, benchmarks="A")
    return found


def decided(measured, margin: float):
    return decide_tables((measured.table(),), margin, lambda r: measured.frames.get(r.cell_id))


def rows(found) -> dict[str, object]:
    return {row.row.label: row for _, block in found[0].blocks for row in block}


@pytest.mark.parametrize(("text", "margin"), [("2%", 2.0), ("2 %", 2.0), ("0.5", 0.5), (" 10% ", 10.0)])
def test_margins_are_read(text: str, margin: float) -> None:
    assert read_margin(text) == margin


@pytest.mark.parametrize("text", ["", "two", "0%", "100", "-2%", "2%%", "nan", "1e2"])
def test_other_margins_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^--margin .*: give the per cent of vanilla that may be lost") as told:
        read_margin(text)
    assert "\n" not in str(told.value)


def test_rows_are_within_below_or_undecided_by_their_interval(measured) -> None:
    share = np.mean([measured.frames[r.cell_id]["score"].mean() for r in measured.records if r.pruner.name == "vanilla"])
    for margin in (1.0, 6.0, 8.0, 12.0):
        found = rows(decided(measured, margin))
        for row in found.values():
            low, high = row.interval
            unseen = 100 * np.log(40) / (IMAGES * share * row.row.n)  # 40 = 1 / 2.5 %
            within = low > 100 - margin and margin > unseen
            assert row.decision == ("within" if within else "below" if high < 100 - margin else "undecided")
    at_good = 100 - found["good"].row.average
    found = rows(decided(measured, at_good))
    assert [found[name].decision for name in ("good", "bad")] == ["undecided", "below"]
    assert [rows(decided(measured, margin))["same"].decision for margin in (5.0, 6.0)] == ["undecided", "within"], (
        "it answers as vanilla does, on 40 images: a loss of 5 % could go unseen"
    )


def test_the_best_and_its_like_may_be_best_and_a_row_with_fewer_benchmarks_does_not_compete(measured) -> None:
    measured.add("alike", 0.9, luck=0)
    found = rows(decided(measured, 2.0))
    assert {name: row.may_be_best for name, row in found.items()} == {
        "same": True, "alike": True, "good": False, "bad": False, "half": None,
    }  # fmt: skip


def test_averages_without_each_benchmark(measured) -> None:
    found = rows(decided(measured, 2.0))
    good = found["good"]
    a, b = (entry.relative for entry in good.row.entries)
    assert good.without == (pytest.approx(b), pytest.approx(a))
    assert found["half"].without == (None, None)


def test_the_smallest_difference_goes_by_vanillas_questions(measured) -> None:
    (found,) = decided(measured, 2.0)
    shares = [measured.frames[r.cell_id]["score"].mean() for r in measured.records if r.pruner.name == "vanilla"]
    assert found.smallest == pytest.approx(smallest_difference([200, 200], shares))
    assert found.questions == 400
    measured.frames.clear()
    (blind,) = decided(measured, 2.0)
    assert (blind.smallest, blind.questions) == (None, None)
    assert {row.decision for _, block in blind.blocks for row in block} == {None}


def test_the_sheet_says_it_in_words_and_scripts_get_every_number(measured) -> None:
    sheet = decisions_sheet(decided(measured, 8.0))
    text = render_sheet(sheet, "markdown")
    assert "| same " in text
    assert "within 8 %" in text
    assert "- **Smallest difference:** two rows that differ by" in text
    assert "(assumed)" in text
    assert "without A" in text
    values = json.loads(render_sheet(sheet, "json"))
    assert {tuple(row) for row in values} == {FIELDS}
    whole = {row["label"]: row for row in values if row["without"] is None}
    assert (whole["bad"]["decision"], whole["bad"]["may_be_best"], whole["bad"]["margin"]) == ("below", "false", 8.0)
    assert whole["half"]["may_be_best"] is None
    left_out = [row for row in values if row["label"] == "good" and row["without"]]
    assert [row["without"] for row in left_out] == ["A", "B"]
    assert all(row["rank_without"] == 2 for row in left_out)
