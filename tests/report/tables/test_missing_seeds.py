from __future__ import annotations

import io
import json

import pandas as pd
import pytest

from vtpbench.report.formats.render import render
from vtpbench.report.html import html
from vtpbench.report.stats.build import build
from vtpbench.report.tables.table import build_tables


def seeded(record, benchmark: str, seed: int):
    return record("random", benchmark, 50.0, seed=seed).model_copy(update={"seeds": [0, 1, 2]})


@pytest.mark.parametrize("absent", [{1}, {0, 2}])
def test_a_row_says_which_of_its_seeds_have_no_record(record, absent: set[int]) -> None:
    there = [seeded(record, "GQA", seed) for seed in range(3) if seed not in absent]
    (table,) = build_tables([record("vanilla", "GQA", 80.0), *there])
    names = " 1" if absent == {1} else "s 0, 2"
    told = f"{3 - len(absent)} of 3 seeds: no record of seed{names}"
    assert table.notes == (told,)
    assert table.blocks[1].rows[0].entries[0].notes == (1,)


def test_all_formats_say_so(record) -> None:
    records = [record("vanilla", "GQA", 80.0), seeded(record, "GQA", 0), seeded(record, "GQA", 2)]
    tables = build(records)
    for name in ("markdown", "latex"):
        assert "2 of 3 seeds: no record of seed 1" in render(tables, name)
    assert "2 of 3 seeds: no record of seed 1" in html(tables)
    assert {(cell["seeds"], cell["seeds_asked"]) for cell in json.loads(render(tables, "json"))} == {(1, 1), (2, 3)}
    shown = pd.read_csv(io.StringIO(render(tables, "csv")))  # one row a record
    assert shown[["seeds", "seeds_asked"]].to_numpy().tolist() == [[1, 1], [2, 3], [2, 3]]


def test_records_that_do_not_say_are_compared_with_the_row_s_other_benchmarks(record) -> None:
    records = [record("random", "GQA", 50.0, seed=seed) for seed in range(3)] + [record("random", "POPE", 50.0, seed=0)]
    (table,) = build_tables(records)
    assert "1 of 3 seeds: no record of seeds 1, 2" in table.notes


def test_nothing_is_said_where_all_are_there_or_a_pruner_draws_nothing(record) -> None:
    records = [record("vanilla", "GQA", 80.0), record("fastv", "GQA", 70.0), *(seeded(record, "GQA", seed) for seed in range(3))]
    assert build_tables(records)[0].notes == ()
