from __future__ import annotations

from vtpbench.report.tables.places import places, ranked
from vtpbench.report.tables.table import Block, build_tables


def test_first_second_and_nothing() -> None:
    assert ranked([70.0, 90.0, 80.0], [False] * 3) == [0, 1, 2]
    assert ranked([None, 90.0, 80.0], [False] * 3) == [0, 1, 2]
    assert ranked([90.0, None], [False] * 2) == [0, 0], "a number alone wins nothing"
    assert ranked([], []) == []


def test_what_prints_alike_shares_a_place() -> None:
    assert ranked([90.01, 90.02, 80.04, 80.0, 70.0], [False] * 5) == [1, 1, 2, 2, 0]
    assert ranked([100.2, 100.4, 99.0], [False] * 3) == [1, 1, 2]


def test_what_cannot_be_told_apart_from_the_best_is_first_as_well() -> None:
    assert ranked([85.0, 90.0, 88.0, 80.0], [True, False, False, False]) == [1, 1, 2, 0]
    assert ranked([85.0, 90.0], [True, False]) == [1, 1]


def test_columns_and_averages_have_places_of_their_own_and_fewer_benchmarks_do_not_compete(record) -> None:
    scores = {"a": (80.0, 60.0), "b": (70.0, 90.0), "c": (99.0, None)}
    records = [record("vanilla", name, 100.0) for name in ("A", "B")]
    for pruner, values in scores.items():
        records += [record(pruner, name, score) for name, score in zip("AB", values, strict=True) if score is not None]
    (table,) = build_tables(records)
    found = dict(zip([row.label for row in table.blocks[1].rows], places(table.blocks[1]), strict=True))
    assert found == {"a": ((2, 2), 2), "b": ((0, 1), 1), "c": ((1, 0), 0)}
    assert places(table.blocks[0]) == [((0, 0), 0)]
    assert places(Block("empty", ())) == []
