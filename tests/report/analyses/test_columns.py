from __future__ import annotations

import csv
import io
import json

import pandas as pd
import pytest

from vtpbench.harness.host.checksummed import BadRecord
from vtpbench.harness.records.record import load_record
from vtpbench.pruners.errors import UserError
from vtpbench.report.analyses.columns import by_category, hard, part_tables
from vtpbench.report.analyses.flips import flips, flips_sheet
from vtpbench.report.analyses.sensitivity import sensitivity
from vtpbench.report.formats import data
from vtpbench.report.formats.sheet import render_sheet
from vtpbench.report.published.published import published
from vtpbench.report.published.reprint import published_tables
from vtpbench.report.stats.build import build

CATEGORIES = ["color"] * 4 + ["count"] * 4
VANILLA, RANDOM, PLAIN = [1, 1, 1, 1, 1, 1, 0, 0], [1, 0, 0, 1, 1, 0, 0, 1], [1, 1, 0, 0, 1, 0, 0.3, 0]


class Cells:
    """Records whose scores are the means of their samples, and the samples."""

    def __init__(self, record) -> None:
        self.record, self.records, self.tables = record, [], {}

    def add(self, pruner: str, benchmark: str, scores, score: float | None = None, **facts):
        mean = 100 * sum(scores) / len(scores) if score is None else score
        made = self.record(pruner, benchmark, mean, **facts).model_copy(update={"n": len(scores)})
        numbers = [None if s is None else float(s) for s in scores]
        table = pd.DataFrame({"sample": [str(i) for i in range(len(scores))], "score": numbers})
        for name in ("image", "prompt", "target"):
            table[name] = name + " " + table["sample"]
        table["category"] = (CATEGORIES * len(scores))[: len(scores)]
        table["answer"] = [f"{pruner} says {s}" for s in scores]
        table["detail"] = "{}"
        self.tables[made.cell_id] = table
        self.records.append(made)
        return made

    def samples(self, record):
        return self.tables.get(record.cell_id)


@pytest.fixture
def cells(record) -> Cells:
    made = Cells(record)
    for pruner, scores in (("vanilla", VANILLA), ("random", RANDOM), ("downsample", PLAIN)):
        made.add(pruner, "A", scores)
    return made


def entry(table, label: str, column: str):
    (found,) = (row for block in table.blocks for row in block.rows if row.label == label)
    return found.entries[table.columns.index(column)]


def test_hard_questions_are_those_that_downsampling_gets_wrong_and_vanilla_is_scored_on_them_too(cells) -> None:
    (table,) = part_tables(hard(cells.records, cells.samples), [], [])
    vanilla, pruned = entry(table, "vanilla", "A"), entry(table, "random", "A")
    assert (vanilla.score, pruned.score) == (60.0, 40.0)  # questions 2, 3, 5, 6, 7
    assert pruned.relative == pytest.approx(100 * 40 / 60)
    assert pruned.records[0].n == 5
    assert table.title.endswith("hard questions at 16 tokens")
    assert table.footer[0] == ("Hard questions", "the questions that downsample gets wrong at the same budget: 5 of 8 of A")
    assert [row.label for block in table.blocks for row in block.rows] == ["vanilla", "random"]


def test_each_budget_has_hard_questions_of_its_own(cells) -> None:
    cells.add("random", "A", RANDOM, tokens=48)
    cells.add("downsample", "A", [1, 1, 1, 1, 1, 1, 1, 0], tokens=48)
    cells.add("random", "A", RANDOM, tokens=32)
    tables = {table.title.rsplit(" at ", 1)[1]: table for table in part_tables(hard(cells.records, cells.samples), [], [])}
    assert set(tables) == {"16 tokens", "48 tokens"}
    assert entry(tables["48 tokens"], "random", "A").score == 100.0
    assert entry(tables["48 tokens"], "random", "A").notes == (1,)
    assert tables["48 tokens"].notes == ("no relative accuracy: vanilla scores 0",)


def test_a_metric_that_is_no_mean_and_a_missing_downsample_cell_say_so(cells) -> None:
    cells.add("vanilla", "F1", VANILLA, 80.0)
    cells.add("random", "F1", RANDOM, 50.0)
    cells.add("downsample", "F1", PLAIN, 60.0)
    cells.add("vanilla", "B", VANILLA)
    cells.add("random", "B", RANDOM)
    (table,) = part_tables(hard(cells.records, cells.samples), [], [])
    assert entry(table, "random", "F1").status == entry(table, "random", "B").status == "unsupported"
    assert any("exact_match is no mean over questions" in note for note in table.notes)
    assert any("no downsample cell with per-sample scores at this budget" in note for note in table.notes)
    assert entry(table, "random", "A").score == 40.0


def test_an_f1_that_happens_to_equal_the_mean_of_one_cell_is_not_recomputed(cells) -> None:
    for pruner, scores, score in (("vanilla", [1] * 8, 100.0), ("random", RANDOM, 61.5), ("downsample", PLAIN, 55.0)):
        cells.add(pruner, "F1", scores, score)
    (table,) = part_tables(hard(cells.records, cells.samples), [], [])
    assert entry(table, "vanilla", "F1").status == "unsupported"


def test_where_less_is_better_the_same_questions_are_hard_and_the_same_answers_flip(cells) -> None:
    wrong = Cells(cells.record)
    for made in cells.records:
        table = cells.tables[made.cell_id].assign(score=lambda rows: 1 - rows["score"])
        info = made.benchmark.model_copy(update={"metric": "error", "higher_is_better": False})
        wrong.records.append(made.model_copy(update={"benchmark": info, "score": 100 - made.score}))
        wrong.tables[made.cell_id] = table
    parts = [hard(each.records, each.samples) for each in (cells, wrong)]
    assert parts[0][0].facts == parts[1][0].facts
    (table,) = part_tables(parts[1], [], [])
    assert entry(table, "random", "A").score == pytest.approx(100 - 40)
    assert entry(table, "random", "A").relative == pytest.approx(200 - 100 * 60 / 40)
    right, less = (flips(each.records, each.samples)[0].cells for each in (cells, wrong))
    assert [(c.label, c.count("broken"), c.count("mended")) for c in right] == [
        (c.label, c.count("broken"), c.count("mended")) for c in less
    ]


def test_without_downsample_the_mend_is_named(cells) -> None:
    with pytest.raises(UserError, match="add `downsample` to the suite's pruners"):
        hard([r for r in cells.records if r.pruner.name != "downsample"], cells.samples)


def test_a_cell_that_failed_takes_no_part_and_can_have_no_score(cells, tmp_path) -> None:
    made = cells.add("fastv", "A", RANDOM)
    file = tmp_path / "record.json"
    failed = made.model_copy(update={"status": "failed", "reason": "5 tokens, 6 were due"})
    file.write_text(failed.dump())
    with pytest.raises(BadRecord, match="only a cell whose status is ok has a score"):
        load_record(file)
    file.write_text(failed.model_copy(update={"score": None, "stderr": None}).dump())
    cells.records[-1] = load_record(file)
    (whole,) = build(cells.records, samples=cells.samples)
    for table in (whole, *part_tables(by_category(cells.records, cells.samples), [], [])):
        row = next(row for block in table.blocks for row in block.rows if row.label == "fastv")
        assert {(e.status, e.score, e.relative) for e in row.entries} == {("failed", None, None)}
        assert (row.average, row.n) == (None, 0)
        assert "failed: 5 tokens, 6 were due" in table.notes
    (setting,) = flips(cells.records, cells.samples)
    assert "fastv" not in {cell.label for cell in setting.cells}
    (shown,) = (cell for cell in data.cells([whole]) if cell["pruner"] == "fastv")
    assert (shown["score"], shown["stderr"], shown["relative"]) == (None, None, None)


def test_vanilla_that_failed_is_no_denominator(cells) -> None:
    failed = {"status": "failed", "reason": "why", "score": None, "stderr": None}
    cells.records[0] = cells.records[0].model_copy(update=failed)
    (table,) = build(cells.records)
    assert {row.average for block in table.blocks for row in block.rows} == {None}
    assert flips(cells.records, cells.samples)[0].left_out == ("A (no vanilla cell with samples)",)


def test_infeasible_cells_and_cells_without_samples_stay_and_say_why(cells, record) -> None:
    cells.records.append(record("fastv", "A", status="infeasible", reason="too few", batch=None))
    cells.tables.pop(cells.add("visionzip", "A", RANDOM).cell_id)
    (table,) = part_tables(hard(cells.records, cells.samples), [], [])
    assert entry(table, "fastv", "A").status == "infeasible"
    assert entry(table, "visionzip", "A").status == "unsupported"
    assert "unsupported: its per-sample table is missing" in table.notes


def test_categories_are_columns_and_their_scores_are_means_of_their_own_questions(cells) -> None:
    cells.add("vanilla", "F1", VANILLA, 80.0)
    (table,) = part_tables(by_category(cells.records, cells.samples), [], [])
    assert table.columns == ("color", "count")
    assert [entry(table, label, "color").score for label in ("vanilla", "random", "downsample")] == [100.0, 50.0, 50.0]
    assert entry(table, "random", "count").relative == 100.0
    assert table.title.endswith("A by category")
    assert dict(table.footer)["Not by category"].startswith("F1 (exact_match is no mean over questions")


def test_without_categories_the_reason_is_named(cells) -> None:
    for table in cells.tables.values():
        table["category"] = ""
    with pytest.raises(UserError, match=r"nothing to show by category: A \(its questions have no categories\)"):
        by_category(cells.records, cells.samples)


def test_samples_of_a_part_give_its_scores(cells) -> None:
    for part in (*hard(cells.records, cells.samples), *by_category(cells.records, cells.samples)):
        for made in part.records:
            table = part.samples(made)
            assert 100 * table["score"].mean() == pytest.approx(made.score)
            assert len(table) == made.n


def test_parts_have_intervals_as_whole_tables_have(record) -> None:
    cells = Cells(record)
    for pruner, right in (("vanilla", 36), ("random", 20), ("visionzip", 30)):
        table = cells.tables[cells.add(pruner, "A", [1] * right + [0] * (40 - right)).cell_id]
        table["category"] = ["even", "odd"] * 20
    (table,) = part_tables(by_category(cells.records, cells.samples), [], [])
    low, high = entry(table, "visionzip", "even").interval
    assert low < entry(table, "visionzip", "even").relative < high


def official(cells: Cells, pruner: str, metric: str, score: float, rows) -> None:
    """Add a cell of a metric that is no mean: rows of (category, score, the task's own result)."""
    made = cells.add(pruner, "O", [right for _, right, _ in rows], score)
    cells.records[-1] = made.model_copy(update={"benchmark": made.benchmark.model_copy(update={"metric": metric, "scale": 1})})
    table = cells.tables[made.cell_id]
    table["category"] = [category for category, _, _ in rows]
    table["detail"] = [json.dumps({metric: detail}) for _, _, detail in rows]


def mme_rows(existence: str, ocr: str):
    """Rows of pairs of questions, `1` = answered rightly."""
    return [
        (category, int(right), {"question_id": f"{i // 2}", "category": category, "score": int(right)})
        for category, answers in (("existence", existence), ("OCR", ocr))
        for i, right in enumerate(answers)
    ]


@pytest.fixture
def pairs(record) -> Cells:
    cells, metric = Cells(record), "mme_perception_score"
    official(cells, "vanilla", metric, 400, mme_rows("1111", "11"))
    official(cells, "random", metric, 125 + 50, mme_rows("1110", "10"))
    official(cells, "downsample", metric, 125 + 0, mme_rows("1110", "00"))
    return cells


def test_mme_by_category_is_its_subtasks(pairs) -> None:
    (table,) = part_tables(by_category(pairs.records, pairs.samples), [], [])
    assert table.columns == ("OCR", "existence")
    assert [entry(table, label, "existence").score for label in ("vanilla", "random", "downsample")] == [200, 125, 125]
    assert [entry(table, label, "OCR").score for label in ("vanilla", "random", "downsample")] == [200, 50, 0]


def test_pairs_stay_together_among_the_hard_questions(pairs) -> None:
    (table,) = part_tables(hard(pairs.records, pairs.samples), [], [])
    assert table.footer[0][1].endswith("4 of 6 of O")  # of existence, the second pair only
    assert entry(table, "vanilla", "O").score == 400
    assert entry(table, "random", "O").score == 50 + 50


def test_rotations_stay_together_among_the_hard_questions(record) -> None:
    def rows(answers: str):
        return [("one", int(right), {"index": i // 2 + 1_000_000 * (i % 2)}) for i, right in enumerate(answers)]

    cells = Cells(record)
    for pruner, answers, right in (("vanilla", "111110", 2), ("random", "110111", 2), ("downsample", "111000", 1)):
        official(cells, pruner, "gpt_eval_score", 100 * right / 3, rows(answers))
    (table,) = part_tables(hard(cells.records, cells.samples), [], [])
    assert table.footer[0][1].endswith("4 of 6 of O")
    assert [entry(table, label, "O").score for label in ("vanilla", "random")] == [50, 50]


def test_f1_is_counted_anew_for_each_stratum(record) -> None:
    def rows(said: str):
        truth = ["yes", "no"] * 4
        words = [{"y": "yes", "n": "no"}[letter] for letter in said]
        details = [{"prediction": word, "ground_truth": there} for word, there in zip(words, truth, strict=True)]
        strata = ["random"] * 4 + ["popular"] * 4
        return [(s, int(d["prediction"] == d["ground_truth"]), d) for s, d in zip(strata, details, strict=True)]

    cells = Cells(record)
    official(cells, "vanilla", "pope_f1_score", 1.0, rows("ynynynyn"))
    official(cells, "random", "pope_f1_score", 0.75, rows("yyynynnn"))
    (table,) = part_tables(by_category(cells.records, cells.samples), [], [])
    assert entry(table, "random", "random").score == pytest.approx(4 / 5)
    assert entry(table, "random", "popular").score == pytest.approx(2 / 3)
    assert entry(table, "vanilla", "popular").score == 1
    assert entry(table, "random", "popular").records[0].stderr is None


def test_mmmu_s_subjects_are_its_categories_and_what_is_not_scored_does_not_count(record) -> None:
    cells = Cells(record)
    for pruner, right in (("vanilla", [1, 1, 0, 1]), ("random", [1, 0, 0, 1])):
        rows = [("", score, {"subdomain": subject}) for score, subject in zip(right, ["Art", "Art", "Math", "Math"], strict=True)]
        official(cells, pruner, "mmmu_acc", sum(right) / 4, rows)
    (table,) = part_tables(by_category(cells.records, cells.samples), [], [])
    assert {column: entry(table, "random", column).score for column in table.columns} == {"Art": 0.5, "Math": 0.5}
    cells.add("vanilla", "SEED", [1, 0, None, 1], 200 / 3)
    cells.add("downsample", "SEED", [0, 1, None, 1], 200 / 3)
    (part,) = hard(cells.records[2:], cells.samples)
    assert part.facts[0][1].endswith("1 of 3 of SEED")
    assert [r.n for r in part.records] == [1]


def test_flips_are_counted_by_direction_and_listed(cells) -> None:
    (setting,) = flips(cells.records, cells.samples)
    found = {cell.label: (cell.count("broken"), cell.count("mended"), cell.n) for cell in setting.cells}
    assert found == {"random": (3, 1, 8), "downsample": (3, 0, 8)}
    sheet = flips_sheet([setting])
    rows = json.loads(render_sheet(sheet, "json"))
    mended = next(row for row in rows if row["kind"] == "mended")
    assert (mended["sample"], mended["label"]) == ("7", "random")
    assert (mended["vanilla_answer"], mended["answer"]) == ("vanilla says 0", "random says 1")
    assert len(list(csv.DictReader(io.StringIO(render_sheet(sheet, "csv"))))) == 7
    lines = render_sheet(sheet, "markdown").splitlines()
    assert next(line for line in lines if line.startswith("| random")).split("|")[2].strip() == "-3 +1 of 8"


def test_flips_need_scores_of_single_questions_and_a_vanilla_cell(cells) -> None:
    cells.add("random", "B", RANDOM)
    made = cells.add("vanilla", "C", VANILLA)
    cells.tables[made.cell_id]["score"] = None
    (setting,) = flips(cells.records, cells.samples)
    assert setting.left_out == ("B (no vanilla cell with samples)", "C (its task scores no single question)")


def test_without_seed_and_vizwiz_the_paper_s_order_of_rows_changes() -> None:
    rows = sensitivity(published_tables(published())).rows
    at = {(row["block"], row["label"]): row for row in rows if "Table 1 " in row["table"]}
    ours = "OC-VTP (train-once, padded to budget)"
    for budget, expected in {
        "Retain 192 tokens (33.3 %)": (98.06, 98.31, 98.42),
        "Retain 128 tokens (22.2 %)": (97.23, 96.60, 96.83),
        "Retain 64 tokens (11.1 %)": (93.61, 91.83, 94.44),
    }.items():
        found = [at[budget, label]["average_without"] for label in ("VisionZip", "HiPrune", ours)]
        assert found == pytest.approx(expected, abs=0.005)
    row = at["Retain 128 tokens (22.2 %)", "VisionZip"]
    assert (row["rank"], row["rank_without"], row["n"], row["n_without"]) == (3, 1, 9, 8)
    assert at["Retain 128 tokens (22.2 %)", "OC-VTP (trained per benchmark)"]["rank_without"] is None


def test_sensitivity_leaves_out_tables_that_have_none_of_these_benchmarks(matrix) -> None:
    assert sensitivity(build(matrix)).grids == ()
