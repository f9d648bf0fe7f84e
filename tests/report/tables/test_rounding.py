from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vtpbench.report.tables.rounding import average, half_up, paper, paper_spread, relative

PUBLISHED = Path(__file__).parents[3] / "results" / "published" / "oc_vtp_paper.yaml"


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, dict[str, Any], list[float | None]]]:
    """(where, row, relative accuracies) of every row of tables 1, 2, 3 and 5, vanilla included."""
    tables = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))["tables"]
    found = []
    for name in ("table1", "table2", "table3", "table5"):
        table = tables[name]
        named = [(f"{name} vanilla", table["vanilla"])]
        for block in table["blocks"]:
            budget = block["budget"]["tokens"] or f"{block['budget']['percent']} %"
            named += [(f"{name} {budget} {row['pruner']}", row) for row in block["rows"]]
        for where, row in named:
            scores = zip(row["score"], table["vanilla"]["score"], strict=True)
            found.append((where, row, [relative(score, vanilla) for score, vanilla in scores]))
    return found


def test_all_390_printed_percentages_follow_from_the_printed_scores(rows) -> None:
    printed = [
        (where, paper(ratio) if ratio is not None else None, None if percent is None else str(percent))
        for where, row, ratios in rows
        for ratio, percent in zip(ratios, row["percent"], strict=True)
    ]
    assert [case for case in printed if case[1] != case[2]] == []
    assert sum(percent is not None for _, _, percent in printed) == 390


def test_47_of_49_printed_averages_follow_and_the_two_misses_are_known(rows) -> None:
    printed = [(where, average(ratios)[0], row["average"]) for where, row, ratios in rows if row["average"] is not None]
    misses = {where: (round(exact, 3), shown) for where, exact, shown in printed if paper(exact) != str(shown)}
    assert len(printed) == 49
    assert misses == {
        "table2 160 VisionZip": (93.161, 93.1),
        "table5 192 OC-VTP (32 Slots - Top 6)": (94.658, 94.6),
    }


def test_tables_6_and_7_repeat_the_averages_of_table_5() -> None:
    tables = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))["tables"]
    best = [block["rows"][-1]["average"] for block in tables["table5"]["blocks"]]
    assert best == [row["layer 9"] for row in tables["table6"]["rows"]] == [row["AW-MSE"] for row in tables["table7"]["rows"]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0"),
        (85.14, "85.1"),
        (85.25, "85.3"),
        (99.94, "99.9"),
        (99.95, "100"),
        (100.44, "100"),
        (100.466, "101"),
        (1862.4, "1862"),
    ],
)
def test_paper_rounds_halves_up_and_twice_from_100_on(value: float, text: str) -> None:
    assert paper(value) == text


def test_binary_noise_does_not_decide_a_half() -> None:
    assert 100 * 0.0515 < 5.15  # what a float makes of it
    assert str(half_up(100 * 0.0515, 1)) == "5.2"


def test_spread_has_the_decimals_of_its_mean() -> None:
    assert paper_spread(84.06, 0.55) == "84.1 ± 0.6"
    assert paper_spread(1708.2, 12.4) == "1708 ± 12"


def test_relative_needs_a_denominator() -> None:
    assert relative(50, 80) == 62.5
    assert relative(50, None) is relative(None, 80) is relative(50, 0) is None
    assert relative(0, 80) == 0


def test_where_less_is_better_what_is_more_counts_against_100_as_much_as_it_would_count_for_it():
    for score, vanilla in ((5, 10), (20, 10), (40, 10), (10, 10), (0, 10)):
        more, less = relative(score, vanilla), relative(score, vanilla, higher_is_better=False)
        assert more + less == 200
    assert relative(40, 10, higher_is_better=False) == -200
    assert relative(0, 10, higher_is_better=False) == 200, "no error at all is no division by 0"
    assert relative(5, 0, higher_is_better=False) is None


def test_average_skips_what_is_missing() -> None:
    assert average([90.0, None, 80.0]) == (85.0, 2)
    assert average([None]) == (None, 0)
