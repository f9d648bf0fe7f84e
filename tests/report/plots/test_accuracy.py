"""Figures of accuracy: what is in them, read from the SVG, and that they are the same each time."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image

from vtpbench.pruners.errors import UserError
from vtpbench.report.html.costs import profiles
from vtpbench.report.plots.accuracy import plot_accuracy
from vtpbench.report.published.published import published
from vtpbench.report.published.reprint import published_tables
from vtpbench.report.tables.table import build_tables


def texts(svg: bytes) -> list[str]:
    return re.findall(r"<!-- (.*?) -->", svg.decode())


@pytest.fixture
def records(record):
    found = [record("vanilla", name, 80.0) for name in ("GQA", "POPE")]
    for pruner, loss in (("random", 2.0), ("fastv", 1.0), ("twin", 1.0)):
        places = [(name, tokens) for name in ("GQA", "POPE") for tokens in (16, 48)]
        found += [record(pruner, name, 80.0 - 100 * loss / tokens, tokens=tokens) for name, tokens in places]
    return [*found, record("partial", "GQA", 79.0)]


def test_it_fits_a_column_and_names_every_pruner(records) -> None:
    tables = build_tables(records)
    width, _ = Image.open(io.BytesIO(plot_accuracy(tables))).size
    assert width == round(3.3 * 300)
    shown = texts(plot_accuracy(tables, format_name="svg"))
    names = {"random", "fastv", "twin", "partial", "vanilla"}
    assert {*names, "16", "48", "Observed vision tokens per layer", "Avg, % of vanilla"} <= {*shown}
    assert plot_accuracy(tables, format_name="pdf").startswith(b"%PDF")


def test_equal_rows_are_both_seen_and_one_without_a_benchmark_is_hollow(records) -> None:
    svg = plot_accuracy(build_tables(records), format_name="svg").decode()
    marks = re.findall(r'<use xlink:href="#(\w+)" x="([\d.]+)" y="([\d.]+)"', svg)
    assert len(marks) > 7
    assert len({(x, y) for _, x, y in marks}) == len(marks), "no two marks in one place"
    whole = [*records, records[-1].model_copy(update={"cell_id": "more", "benchmark": records[1].benchmark})]
    drawn = [plot_accuracy(build_tables(own), format_name="svg").decode() for own in (records, whole)]
    hollow = [svg.count("fill: #ffffff; stroke: #") for svg in drawn]
    assert hollow[0] > hollow[1]


def test_time_has_a_panel_where_it_was_measured(records, profiled) -> None:
    tables = build_tables(records)
    found = profiles([profiled(random=(16, 48), fastv=(16,))], tables)
    shown = texts(plot_accuracy(tables, found, "svg"))
    assert [text for text in shown if text.startswith("Time")] == ["Time to first token, ms"]
    assert not [text for text in texts(plot_accuracy(tables, (), "svg")) if text.startswith("Time")]


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_a_figure_is_the_same_each_time(records, form: str) -> None:
    tables = build_tables(records)
    assert plot_accuracy(tables, format_name=form) == plot_accuracy(tables, format_name=form)


def test_without_measured_rows_there_is_nothing_to_draw(record) -> None:
    for tables in ((), published_tables(published()), build_tables([record("vanilla")])):
        with pytest.raises(UserError, match="nothing to draw"):
            plot_accuracy(tables)
