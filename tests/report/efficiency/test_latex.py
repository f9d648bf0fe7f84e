"""Efficiency tables as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from vtpbench.harness.records.efficiency import EfficiencyRecord
from vtpbench.report.efficiency.columns import columns
from vtpbench.report.efficiency.table import build
from vtpbench.report.efficiency.text import render

MakeProfiled = Callable[..., EfficiencyRecord]


def test_it_is_balanced_and_every_line_has_all_columns(profiled: MakeProfiled) -> None:
    table = build([profiled(random=(48, 16), fastv=())])
    text = render(table, "latex")
    assert re.findall(r"\\begin\{([\w*]+)\}", text) == ["table*", "tabular", "minipage"]
    assert sorted(re.findall(r"\\end\{([\w*]+)\}", text)) == ["minipage", "table*", "tabular"]
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))
    lines = [line for line in text.split(r"\toprule")[1].split(r"\bottomrule")[0].splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(columns(table[0])) + 1}
    assert len(lines) == 2 + 3 * 2 + 1
    assert lines[2].startswith("vanilla & all & 144.0 & 3.002 &")
    assert lines[3].startswith(" &  &  &  &  &  & (0) & (0) & (0) & (0) &  & (0) &")
    assert lines[-1].startswith("fastv & 16 & infeasible & - &")


def test_what_is_too_wide_is_shrunk_and_what_is_too_long_comes_in_parts(profiled: MakeProfiled) -> None:
    text = render(build([profiled(**{f"p{i:02}": (16,) for i in range(24)})]), "latex")
    assert text.startswith("% \\usepackage{booktabs,graphicx}\n")
    assert text.count(r"\resizebox{\linewidth}{!}{%") == text.count(r"\begin{tabular}") == 2
    assert re.findall(r"\\caption\{(.*)\}", text) == [f"tiny-llava, batch 1, random weights ({i} of 2)" for i in (1, 2)]
    assert text.count("break-even budget") == text.count(r"\begin{minipage}") == 1
    assert all(f"\np{i:02} & 16 &" in text for i in range(24))


@pytest.mark.parametrize("label", ["a_b & 100%", r"\input{x}", "$x^2$ #1 {y}", "[*]"])
def test_hostile_labels_are_escaped(profiled: MakeProfiled, label: str) -> None:
    text = render(build([profiled(model=label, **{label: (16,), f"{label} 2": ()})]), "latex")
    bare = re.sub(r"\\[&%$#_{}]", "", text)
    assert r"\input" not in bare
    assert label not in text
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))
