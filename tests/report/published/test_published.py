from __future__ import annotations

import re

import pytest

from vtpbench.report.formats.render import render
from vtpbench.report.published.published import PaperTable, number, published
from vtpbench.report.published.reprint import missed_averages, published_tables
from vtpbench.report.tables.rounding import paper
from vtpbench.report.tables.table import Table

SCORED = ("table1", "table2", "table3", "table5")


@pytest.fixture(scope="module")
def made() -> list[tuple[str, PaperTable, Table]]:
    figures = published()
    return [(name, figures.tables[name], table) for name, table in zip(SCORED, published_tables(figures), strict=True)]


def rows(table: PaperTable, built: Table):
    """(printed row, row made from its scores), found by place in the layout."""
    printed = [[table.vanilla], *(block.rows for block in table.blocks)]
    for block, expected in zip(built.blocks, printed, strict=True):
        yield from zip(expected, block.rows, strict=True)


def test_rows_blocks_and_columns_lie_as_in_the_paper(made) -> None:
    for _, table, built in made:
        assert built.columns == table.benchmarks
        assert all(row.label == expected.pruner for expected, row in rows(table, built))
    titles = [block.title for block in made[0][2].blocks]
    assert titles[:3] == ["All 576 tokens", "Retain 192 tokens (33.3 %)", "Retain 128 tokens (22.2 %)"]
    assert titles[3:] == ["Retain 64 tokens (11.1 %)", "Retain 8.8 % (50.7 tokens on average)"]
    assert [block.title for block in made[2][2].blocks] == ["All tokens", "Retain 33.3 %", "Retain 22.2 %", "Retain 11.1 %"]


def test_all_390_percentages_of_the_rendered_tables_are_the_printed_ones(made) -> None:
    count = 0
    for name, table, built in made:
        for expected, row in rows(table, built):
            assert [entry.score for entry in row.entries] == list(expected.score), (name, row.label)
            shown = [None if entry.relative is None else paper(entry.relative) for entry in row.entries]
            assert shown == [None if percent is None else paper(percent) for percent in expected.percent], (name, row.label)
            count += sum(text is not None for text in shown)
    assert count == 390


def test_47_of_49_averages_are_the_printed_ones_and_the_two_misses_are_named_below_their_tables(made) -> None:
    agree, printed = 0, 0
    for _, table, built in made:
        for expected, row in rows(table, built):
            assert (row.average is None) == (expected.average is None)
            if row.average is not None and expected.average is not None:
                printed += 1
                agree += paper(row.average) == paper(expected.average)
    assert (agree, printed) == (47, 49)
    assert [[fact for name, fact in built.footer if name == "Does not follow"] for _, _, built in made] == [
        [],
        ["VisionZip, Retain 160 tokens (5.6 %): 93.161 follows from the printed scores, printed is 93.1"],
        [],
        ["OC-VTP (32 Slots - Top 6), Retain 192 tokens (33.3 %): 94.658 follows from the printed scores, printed is 94.6"],
    ]
    assert list(missed_averages(made[0][1], made[0][2])) == []


def test_markdown_of_table_1_shows_every_printed_number_in_its_place(made) -> None:
    _, table, built = made[0]
    lines = [re.split(r"\s*\|\s*", line.strip("| ")) for line in render([built], "markdown").splitlines() if line.startswith("|")]
    assert lines[0] == ["Pruner", "Tokens", *table.benchmarks, "Avg", "n"]
    body = [line for line in lines[2:] if line[1:] != [""] * (len(line) - 1)]
    for line, expected in zip(body, [table.vanilla, *(row for block in table.blocks for row in block.rows)], strict=True):
        cells = [
            f"{paper(score)}<br>{paper(percent)} %" if score is not None and percent is not None else None
            for score, percent in zip(expected.score, expected.percent, strict=True)
        ]
        assert [text for text in zip(line[2:-2], cells, strict=True) if text[1] and text[0] != text[1]] == []
        assert line[0] == expected.pruner
        assert line[-2] == ("-" if expected.average is None else f"{paper(expected.average)} %")


def test_published_tables_cannot_be_taken_for_measured_ones(made) -> None:
    for name, _, built in made:
        assert built.title.endswith(f"{number(name)} of OC-VTP, arXiv 2511.20439 · published, not measured")
        names = [fact for fact, _ in built.footer]
        assert names[0] == "Published, not measured"
        assert not {"Model", "Engine", "Seeds"} & set(names)


def test_budgets_that_were_only_asked_for_are_not_shown_as_observed(made) -> None:
    observed = {(row.label, row.observed) for block in made[0][2].blocks for row in block.rows if row.observed is not None}
    assert observed == {("Vanilla", 576.0), ("OC-VTP (train-once, unpadded)", 50.7)}


def test_tables_of_averages_name_their_variants() -> None:
    tables = published().tables
    (best, *_), *_ = [block.rows for block in tables["table6"].blocks]
    assert (best.pruner, best.average, set(best.score)) == ("OC-VTP (layer 9)", 99.9, {None})
    assert [row.pruner for row in tables["table7"].blocks[0].rows] == ["OC-VTP (MSE)", "OC-VTP (AW-MSE)"]


def test_every_row_and_column_can_be_found_among_measured_ones() -> None:
    figures = published()
    assert {name for table in figures.tables.values() for name in table.benchmarks} == set(figures.benchmarks)
    labels = {row.pruner for table in figures.tables.values() for block in table.blocks for row in block.rows}
    by_label_only = {"OC-VTP (trained per benchmark)", "OC-VTP (MSE)", "OC-VTP (AW-MSE)"}
    assert labels - set(figures.pruners) == by_label_only
    for reason in figures.reasons:
        assert set(reason.benchmarks) <= set(figures.benchmarks)
        assert set(reason.tables) <= set(figures.tables)
        assert set(reason.pruners) <= labels
