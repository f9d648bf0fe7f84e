from __future__ import annotations

import pytest
from rich.cells import cell_len

from vtpbench.harness.host.text_grid import text_grid, text_table


def test_columns_are_aligned_two_blanks_apart_and_lines_end_with_text() -> None:
    assert text_grid([["a", "bb", "c"], ["long", "b", ""]]) == ["a     bb  c", "long  b"]


def test_nothing_is_folded_or_cut_off_without_a_width() -> None:
    long = "x" * 5000
    assert text_grid([["name", "text"], ["a", long]]) == ["name  text", f"a     {long}"]


def test_long_cells_are_folded_into_a_width_and_nothing_is_lost() -> None:
    lines = text_grid([["name", "x" * 50 + " " + "y" * 30]], width=40)
    assert max(map(len, lines)) <= 40
    assert "".join(lines).count("x") == 50
    assert "".join(lines).count("y") == 30


def test_a_cell_may_have_several_lines_and_no_text_is_markup() -> None:
    lines = text_grid([["[red]a[/red]", "one\ntwo"], ["b", ":warning:"]])
    assert lines == [
        "[red]a[/red]  one",
        "              two",
        "b             :warning:",
    ]


def test_wide_letters_take_two_columns() -> None:
    assert text_grid([["日本", "x"], ["abcd", "y"]]) == ["日本  x", "abcd  y"]


TABLE = [["name", "task", "about"], ["exist", "vtpbench_exist", "is a thing there"], ["open", "vtpbench_open", ""]]


def test_words_are_kept_whole_where_they_fit_beside_each_other() -> None:
    assert text_grid(TABLE, width=30) == [
        "name   task            about",
        "exist  vtpbench_exist  is a",
        "                       thing",
        "                       there",
        "open   vtpbench_open",
    ]


def test_a_table_whose_words_do_not_fit_has_one_row_below_the_other() -> None:
    assert text_table(TABLE, width=40) == text_grid(TABLE, width=40)
    assert text_table(TABLE, width=24) == [
        "exist",
        "  task: vtpbench_exist",
        "  about: is a thing",
        "    there",
        "open",
        "  task: vtpbench_open",
    ]


@pytest.mark.parametrize("width", range(12, 70, 3))
def test_nothing_is_lost_at_any_width(width: int) -> None:
    text = "each word of a long cell stands once"
    shown = text_grid([["ab", text], ["日本", text]], width)
    assert max(map(cell_len, shown)) <= width
    assert sorted(" ".join(shown).split()) == sorted(["ab", "日本", *text.split(), *text.split()])
