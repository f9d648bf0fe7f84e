"""Two rows against each other: counts by hand, and numbers that other reports give as well."""

from __future__ import annotations

import csv
import io
import json

import pandas as pd
import pytest

from vtpbench.pruners.errors import UserError
from vtpbench.report.analyses.between import AVG, between
from vtpbench.report.analyses.between_sheet import FIELDS, between_sheet, signed
from vtpbench.report.formats.sheet import render_sheet
from vtpbench.report.html.compare import comparisons
from vtpbench.report.html.view import section
from vtpbench.report.stats.build import build

N = 60
PICTURE = json.dumps([{"picture": "0123456789abcdef-96x96", "tokens": 144, "tiles": [], "cuts": []}])


class Answers:
    """Records whose scores are the means of their answers, one image each."""

    def __init__(self, record) -> None:
        self.record, self.records, self.tables = record, [], {}

    def add(self, pruner: str, benchmark: str, wrong, **facts) -> None:
        scores = [0.0 if i in wrong else 1.0 for i in range(N)]
        made = self.record(pruner, benchmark, 100 * sum(scores) / N, **facts)
        numbers = [str(i) for i in range(N)]
        self.tables[made.cell_id] = pd.DataFrame(
            {
                "sample": numbers,
                "image": [f"{benchmark} {i}" for i in numbers],
                "category": ["odd" if i % 2 else "even" for i in range(N)],
                **{name: [f"{name} {i}" for i in numbers] for name in ("prompt", "target")},
                "answer": [f"{pruner} {score:g}" for score in scores],
                "score": scores,
                "detail": "{}",
                "kept": ["", PICTURE] * (N // 2),
            }
        )
        self.records.append(made)

    def samples(self, record) -> pd.DataFrame | None:
        return self.tables.get(record.cell_id)

    def tables_of(self):
        return build(self.records, samples=self.samples)


@pytest.fixture
def answers(record) -> Answers:
    found = Answers(record)
    for benchmark in ("A", "B"):
        found.add("vanilla", benchmark, {0, 1, 2})
        found.add("one", benchmark, {0, 1, 2, 3, 4, 5, 7, 9}, label="One")
        found.add("one", benchmark, {0, 1}, label="One", tokens=32)
        found.add("other", benchmark, {2, 3, 10, 12} if benchmark == "A" else {1}, label="Other")
    return found


def test_counts_scores_and_differences_are_those_of_the_answers(answers) -> None:
    (found,) = between(answers.tables_of(), ("One@16", "Other@16"), answers.samples)
    assert found.names == ("One@16", "Other@16")
    first, second, average = found.benchmarks
    assert (first.benchmark, first.broken, first.mended, first.n) == ("A", 6, 2, N)  # 0 1 4 5 7 9, and 10 12
    assert (second.broken, second.mended) == (7, 0)
    assert (average.benchmark, average.broken, average.mended, average.n) == (AVG, 13, 2, 2 * N)
    assert (first.one, first.other) == (pytest.approx(100 * 52 / 60), pytest.approx(100 * 56 / 60))
    assert first.difference == pytest.approx(100 * (52 - 56) / 57)
    assert average.difference == pytest.approx((first.difference + second.difference) / 2)
    assert second.interval[0] < second.difference < second.interval[1] < 0
    assert second.p_value < 0.05 < first.p_value


def test_categories_add_up_and_list_what_they_hold(answers) -> None:
    (found,) = between(answers.tables_of(), ("One@16", "Other@16"), answers.samples)
    shown = {(d.benchmark, d.category): (d.broken, d.mended, d.n) for d in found.categories}
    assert shown["A", "even"] == (2, 2, 30)  # 0 4, and 10 12
    assert shown["A", "odd"] == (4, 0, 30)
    for benchmark, whole in zip("AB", found.benchmarks, strict=False):
        parts = [own for (name, _), own in shown.items() if name == benchmark]
        assert tuple(map(sum, zip(*parts, strict=True))) == (whole.broken, whole.mended, whole.n)


def test_the_other_way_round_everything_turns(answers) -> None:
    (one,) = between(answers.tables_of(), ("One@16", "Other@16"), answers.samples)
    (other,) = between(answers.tables_of(), ("Other@16", "One@16"), answers.samples)
    for a, b in zip(one.benchmarks, other.benchmarks, strict=True):
        assert (a.broken, a.mended, a.difference) == (b.mended, b.broken, pytest.approx(-b.difference))
        assert a.interval == pytest.approx((-b.interval[1], -b.interval[0]))


def test_against_vanilla_the_difference_is_the_relative_accuracy(answers) -> None:
    (table,) = answers.tables_of()
    (found,) = between((table,), ("One@16", "vanilla"), answers.samples)
    row = next(row for block in table.blocks for row in block.rows if row.label == "One" and row.observed == 16)
    average = found.benchmarks[-1]
    assert average.difference == pytest.approx(row.average - 100)
    assert average.interval == pytest.approx(tuple(bound - 100 for bound in row.average_interval))


def test_seeds_meet_seeds_and_a_row_without_them_meets_each(answers) -> None:
    answers.add("one", "A", {30}, label="One", seed=1)
    (found,) = between(answers.tables_of(), ("One@16", "Other@16"), answers.samples)
    assert (found.benchmarks[0].broken, found.benchmarks[0].mended, found.benchmarks[0].n) == (6 + 1, 2 + 4, 2 * N)
    assert {d.seed for d in found.disagreements} == {0, 1}


def test_the_page_says_the_same_of_every_two_rows(answers) -> None:
    (table,) = answers.tables_of()
    shown = comparisons(section(table, "t1"), answers.samples)
    names = [name for _, name in shown["rows"]]
    assert names == [
        "vanilla",
        "One · Retain 32 tokens (22.2 %)",
        "One · Retain 16 tokens (11.1 %)",
        "Other · Retain 16 tokens (11.1 %)",
    ]
    assert len(shown["pairs"]) == 6
    for pair, asked in (("2 3", ("One@16", "Other@16")), ("0 2", ("vanilla", "One@16")), ("1 3", ("One@32", "Other@16"))):
        (found,) = between((table,), asked, answers.samples)
        for numbers, d in zip(shown["pairs"][pair], found.benchmarks, strict=True):
            assert numbers[:3] == pytest.approx([d.difference, *d.interval], abs=0.051)
            assert numbers[3:] == [d.broken, d.mended, d.n]


def test_a_page_without_samples_has_nothing_to_compare(matrix) -> None:
    (table,) = build(matrix)
    assert comparisons(section(table, "t1"), lambda record: None)["rows"] == []


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("One@16", "Othr@16"), r"no row 'Othr@16'; did you mean 'Other@16'\?"),
        (("One", "Other"), "'One' stands for 2 rows; say which: One@32, One@16"),
        (("One@16", "One@16"), "both names are those of One@16; give two rows"),
    ],
)
def test_mistakes_are_named(answers, names: tuple[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        between(answers.tables_of(), names, answers.samples)


def test_a_label_alone_will_do_where_it_has_one_budget(answers) -> None:
    (found,) = between(answers.tables_of(), ("Other", "vanilla"), answers.samples)
    assert found.names == ("Other@16", "vanilla")


def test_the_sheet_shows_numbers_and_questions_and_scripts_get_all(answers) -> None:
    sheet = between_sheet(between(answers.tables_of(), ("One@16", "Other@16"), answers.samples))
    text = render_sheet(sheet, "markdown")
    assert "## One@16 against Other@16 · tiny-llava · suite demo" in text
    assert "| A         |   86.7 |     93.3 |       -7.0 |" in text
    assert "## broken: One@16 wrong, Other@16 right · 8 of 13 questions" in text
    assert "0123456789abcdef-96x96.jpg" in text
    rows = json.loads(render_sheet(sheet, "json"))
    assert {tuple(row) for row in rows} == {FIELDS}
    kinds = [row["kind"] for row in rows]
    assert [kinds.count(kind) for kind in ("difference", "broken", "mended")] == [3 + 4, 13, 2]
    broken = next(row for row in rows if row["kind"] == "broken")
    assert (broken["sample"], broken["one_answer"], broken["other_answer"], broken["picture"]) == ("0", "one 0", "other 1", "")
    assert len(list(csv.DictReader(io.StringIO(render_sheet(sheet, "csv"))))) == len(rows)


def test_signs() -> None:
    assert [signed(value) for value in (1.25, -0.04, 0.0, -3)] == ["+1.3", "0.0", "0.0", "-3.0"]
