from __future__ import annotations

from vtpbench.harness.host.text_grid import text_grid


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
