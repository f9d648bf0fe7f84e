from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pandas as pd
import pytest

from vtpbench.harness.records.record import BudgetInfo, PrunerInfo
from vtpbench.pruners.errors import UserError
from vtpbench.report.formats.sheet import render_sheet
from vtpbench.report.published.against import compare
from vtpbench.report.published.against_sheet import FIELDS, against_sheet
from vtpbench.report.published.match import rows_of, same_budget, tables_of
from vtpbench.report.published.published import PaperBudget, published
from vtpbench.report.stats.build import build

LLAVA = {"label": "LLaVA-1.5-7B", "id": "llava-hf/llava-1.5-7b-hf", "preprocessing": "pad", "vision_tokens": 576}
TASKS = {"gqa": "gqa", "textvqa": "textvqa_val", "mmmu": "mmmu_val", "seed": "seedbench", "seed-image": "seedbench", "own": "own"}


@pytest.fixture
def cell(record):
    def make(pruner: str, benchmark: str, score: float, n: int = 12578, model=LLAVA, **facts):
        made = record(pruner, benchmark, score, model=model, **{"tokens": 64, **facts})
        metric = {"seed": "seed_all", "seed-image": "seed_image"}.get(benchmark, "exact_match")
        info = made.benchmark.model_copy(update={"task": TASKS[benchmark], "metric": metric})
        return made.model_copy(update={"benchmark": info, "n": n, "stderr": 0.4})

    return make


def compared(records):
    return compare(build(records), published())


def by_place(comparison):
    return {(row.label, cell.benchmark): cell for row in comparison.rows for cell in row.cells if cell is not None}


def test_measured_and_published_stand_side_by_side_with_a_verdict(cell) -> None:
    (comparison,) = compared(
        [cell("vanilla", "gqa", 62.0), cell("vanilla", "textvqa", 46.0, 5000),
         cell("visionzip", "gqa", 55.2), cell("visionzip", "textvqa", 44.0, 5000)]
    )  # fmt: skip
    cells = by_place(comparison)
    vanilla, pruned = cells["vanilla", "gqa"], cells["visionzip", "gqa"]
    assert (vanilla.measured, vanilla.published, vanilla.verdict) == (62.0, 61.9, "inside")
    assert pruned.difference == pytest.approx(0.1)
    assert pruned.relative_difference == pytest.approx(100 * (55.2 / 62.0 - 55.1 / 61.9))
    assert pruned.verdict == "inside"
    assert cells["visionzip", "textvqa"].verdict == "outside"
    assert any("OCR tokens" in reason for reason in cells["visionzip", "textvqa"].reasons)
    assert comparison.name == "table1"


def test_what_rounds_to_the_printed_figure_is_inside(cell) -> None:
    records = [cell("vanilla", "gqa", 61.94), cell("visionzip", "gqa", 55.16)]
    (comparison,) = compared([record.model_copy(update={"stderr": 0.0}) for record in records])
    assert [cell.verdict for cell in comparison.cells] == ["inside", "outside"]


def test_without_an_interval_there_is_a_difference_and_no_verdict(cell) -> None:
    records = [r.model_copy(update={"stderr": None}) for r in (cell("vanilla", "gqa", 60.0), cell("visionzip", "gqa", 50.0))]
    (comparison,) = compared(records)
    assert {made.verdict for made in comparison.cells} == {"unknown"}
    text = render_sheet(against_sheet([comparison]), "markdown")
    assert "0 of 2 scores inside, 0 outside, 2 without an interval" in text
    assert "-5.1 (-5.7) no interval" in text


def test_intervals_of_the_table_come_first(cell) -> None:
    (table,) = build([cell("vanilla", "gqa", 62.0), cell("visionzip", "gqa", 50.0)])
    (row,) = table.blocks[1].rows
    wide = replace(row, entries=(replace(row.entries[0], score_interval=(40.0, 60.0)),), average_interval=(70.0, 85.0))
    table = replace(table, blocks=(table.blocks[0], replace(table.blocks[1], rows=(wide,))))
    made = compare([table], published())[0].rows[1]
    assert (made.cells[0].bounds, made.cells[0].verdict) == ((40.0, 60.0), "inside")
    assert (made.average.bounds, made.average.verdict) == ((70.0, 85.0), "outside")


def per_sample(right: int, images: int) -> pd.DataFrame:
    """Give 40 questions, of which the first are answered rightly, on some images."""
    scores = [1.0] * right + [0.0] * (40 - right)
    columns = {"sample": [str(i) for i in range(40)], "image": [f"image {i % images}" for i in range(40)], "score": scores}
    return pd.DataFrame({**columns, "category": "", "detail": "{}"})


def test_what_the_bootstrap_refuses_gets_no_verdict_from_a_standard_error(cell) -> None:
    records = [cell("vanilla", "gqa", 62.5, n=40), cell("visionzip", "gqa", 55.0, n=40)]

    def verdicts(images: int | None) -> list[str]:
        def samples(record):
            return None if images is None else per_sample(round(0.4 * record.score), images)

        return [made.verdict for made in compare(build(records, samples=samples), published())[0].cells]

    assert verdicts(images=9) == ["unknown", "unknown"]
    assert verdicts(images=20) == ["inside", "inside"]
    assert verdicts(images=None) == ["inside", "inside"], "without per-sample tables the standard error is all there is"


def test_several_seeds_widen_the_interval(cell) -> None:
    records = [cell("vanilla", "gqa", 62.0), *(cell("visionzip", "gqa", 55.0 + 2 * seed, seed=seed) for seed in range(3))]
    bounds = by_place(compared(records)[0])["visionzip", "gqa"].bounds
    assert bounds is not None
    assert bounds[1] - bounds[0] == pytest.approx(2 * 1.959964 * (0.16 + 4 / 3) ** 0.5)


def test_averages_are_over_what_both_have(cell) -> None:
    records = [cell("vanilla", b, 60.0) for b in ("gqa", "textvqa", "own")] + [cell("visionzip", b, 54.0) for b in ("gqa", "own")]
    (comparison,) = compared(records)
    average = next(row.average for row in comparison.rows if row.beside == "VisionZip")
    assert (average.measured, average.published) == (pytest.approx(90.0), pytest.approx(100 * 55.1 / 61.9))


def test_what_has_no_counterpart_is_named_once(cell) -> None:
    records = [cell("vanilla", "gqa", 60.0), cell("vanilla", "own", 60.0), cell("visionzip", "gqa", 54.0)]
    records += [cell("visionzip", "gqa", 53.0, tokens=48), cell("random", "gqa", 50.0), cell("random", "gqa", 50.0, tokens=48)]
    (comparison,) = compared(records)
    assert comparison.only_measured == ("random", "visionzip (48 tokens)", "benchmark own")
    assert "VisionZip (192 tokens, 128 tokens)" in comparison.only_published
    assert "FastV" in comparison.only_published
    assert "benchmark SEED" in comparison.only_published


def test_a_second_model_of_which_only_vanilla_was_measured_stays(cell) -> None:
    records = [cell("vanilla", "gqa", 62.0), cell("visionzip", "gqa", 55.0)]
    records.append(cell("vanilla", "gqa", 64.0, model={"label": "LLaVA-NeXT-7B", "family": "llava_next"}))
    assert [(made.name, len(made.cells)) for made in compared(records)] == [("table1", 2), ("table2", 1)]


def test_a_seed_that_failed_gives_no_reason(cell, record) -> None:
    failed = cell("visionzip", "gqa", 0.0, seed=0, status="failed", reason="Trace\nKeyError: 1").model_copy(update={"n": 0})
    (comparison,) = compared([cell("vanilla", "gqa", 62.0), failed, cell("visionzip", "gqa", 55.0, seed=1)])
    assert not any("other questions" in reason for made in comparison.cells for reason in made.reasons)


def test_two_columns_may_stand_beside_one_and_each_has_its_reason(cell) -> None:
    records = [cell(p, b, 60.0) for p in ("vanilla", "visionzip") for b in ("seed", "seed-image")]
    cells = by_place(compared(records)[0])
    told = {b: [r for r in cells["visionzip", b].reasons if "metric" in r] for b in ("seed", "seed-image")}
    assert "all questions, images and videos" in told["seed"][0]
    assert "image questions only" in told["seed-image"][0]
    assert len(told["seed"]) == len(told["seed-image"]) == 1


def test_reasons_depend_on_how_it_was_measured(cell) -> None:
    def told(made) -> str:
        (comparison,) = compared([made])
        return "; ".join(comparison.cells[-1].reasons)

    short = cell("visionzip", "mmmu", 30.0, 900)
    long = short.model_copy(update={"benchmark": short.benchmark.model_copy(update={"generation": {"max_new_tokens": 128}})})
    assert "16 tokens" not in told(short)
    assert "ends answers after 16 tokens" in told(long)
    without = cell("visionzip", "textvqa", 44.0, 5000)
    like_theirs = without.model_copy(update={"benchmark": without.benchmark.model_copy(update={"profile": "paper"})})
    assert "OCR tokens" in told(without)
    assert "OCR tokens" not in told(like_theirs)
    assert "other questions: 80 were asked, the printed split has 12578" in told(cell("visionzip", "gqa", 50.0, 80))
    (cropped,) = compared([cell("vanilla", "gqa", 60.0, model={**LLAVA, "preprocessing": "crop"})])
    assert "other preprocessing" in "; ".join(cropped.cells[0].reasons)


def test_a_model_that_the_paper_does_not_have_is_told_what_it_has(matrix) -> None:
    with pytest.raises(UserError, match=r"no figures to stand beside tiny-llava; it has LLaVA-1\.5-7B \(Table 1: GQA, .*Qwen2"):
        compared(matrix)


@pytest.mark.parametrize(
    ("facts", "names"),
    [
        ({"id": "llava-hf/llava-1.5-7b-hf", "family": "llava"}, {"table1", "table5", "table6", "table7"}),
        ({"id": "models/mine", "label": "LLaVA 1.5 7B", "family": "llava"}, {"table1", "table5", "table6", "table7"}),
        ({"id": "llava-hf/llava-1.5-13b-hf", "family": "llava"}, set()),
        ({"id": "llava-hf/llava-v1.6-vicuna-7b-hf", "family": "llava_next"}, {"table2"}),
        ({"id": "llava-hf/llava-v1.6-mistral-7b-hf", "family": "llava_next"}, set()),
        ({"id": "Qwen/Qwen2.5-VL-3B-Instruct", "family": "qwen2_5_vl"}, {"table3"}),
        ({"id": "demo/model", "family": "llava"}, set()),
    ],
)
def test_models_are_found_by_family_and_name(record, facts, names: set[str]) -> None:
    assert set(tables_of(published(), record(model=facts).model)) == names


@pytest.mark.parametrize(
    ("label", "options", "rows"),
    [
        ("ours", {"pad": "att_score", "top_k": 1, "layer": None}, {"OC-VTP (train-once, padded to budget)", "OC-VTP (layer 9)"}),
        ("ours", {"pad": "none", "top_k": 1, "layer": 8}, {"OC-VTP (train-once, unpadded)"}),
        ("ours", {"pad": "att_score", "top_k": 1, "layer": 9}, {"OC-VTP (layer 10)"}),
        ("ours", {"pad": "att_score", "top_k": 3, "layer": None}, {"OC-VTP (64 Slots - Top 3)"}),
        ("OC-VTP layer -2", {"pad": "att_score", "top_k": 1, "layer": None}, {"OC-VTP (layer -2)"}),
        ("OC-VTP layer 2", {"pad": "att_score", "top_k": 1, "layer": 2}, set()),
        ("oc-vtp (AW-MSE)", {"pad": "att_score", "top_k": 1, "layer": None}, {"OC-VTP (AW-MSE)"}),
    ],
)
def test_rows_are_found_by_label_or_else_by_options(label: str, options, rows: set[str]) -> None:
    pruner = PrunerInfo(name="oc-vtp", label=label, options=options, code="", distribution="vtpbench")
    assert rows <= rows_of(published(), pruner)
    assert {row for row in rows_of(published(), pruner) if "Slots" not in row} == {row for row in rows if "Slots" not in row}


@pytest.mark.parametrize(
    ("printed", "asked", "same"),
    [
        ((192, 33.3, None), {"tokens": 192}, True),
        ((192, 33.3, None), {"ratio": 1 / 3}, True),
        ((192, 33.3, None), {"ratio": 0.333}, True),
        ((50.7, 8.8, 64), {"tokens": 64}, True),
        ((None, 33.3, None), {"tokens": 192}, False),
        ((None, 22.2, None), {"ratio": 0.333}, False),
        ((192, 33.3, None), {}, False),
    ],
)
def test_budgets(printed, asked, same: bool) -> None:
    budget = PaperBudget(tokens=printed[0], percent=printed[1], asked=printed[2])
    assert same_budget(budget, BudgetInfo(**asked)) is same


def test_figures_of_a_table_of_averages_are_compared_where_all_its_benchmarks_are_measured(cell, record) -> None:
    tasks = ("gqa", "mmbench_en_dev", "mme", "pope", "textvqa_val", "mmmu_val", "seedbench")
    records = []
    for label, task in zip(published().tables["table5"].benchmarks, tasks, strict=True):
        for pruner, score, name in (("vanilla", 80.0, None), ("oc-vtp", 72.0, "OC-VTP (AW-MSE)")):
            made = record(pruner, label, score, label=name, tokens=64, model=LLAVA)
            records.append(made.model_copy(update={"benchmark": made.benchmark.model_copy(update={"task": task})}))
    (comparison,) = compared(records)
    average = next(row.average for row in comparison.rows if row.beside == "OC-VTP (AW-MSE)")
    assert (comparison.name, average.measured, average.published) == ("table7", pytest.approx(90.0), 94.5)
    fewer = [r for r in records if r.benchmark.label != "SEED"]
    assert all(row.beside == "Vanilla" for row in compared(fewer)[0].rows)


def test_markdown_json_and_csv_say_the_same(cell) -> None:
    records = [cell("vanilla", "gqa", 62.0), cell("visionzip", "gqa", 53.0, label="a|b")]
    sheet = against_sheet(compared(records))
    text = render_sheet(sheet, "markdown")
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == ["Pruner", "", "gqa", "Avg"]
    assert lines[3] == ["vanilla", "measured", "62.0 (100)", "100 %"]
    assert lines[-3:] == [
        ["a&#124;b", "measured", "53.0 (85.5)", "85.5 %"],
        ["VisionZip", "published", "55.1 (89.0)", "89.0 %"],
        ["", "difference", "-2.1 (-3.5) outside¹", "-3.5 no interval"],
    ]
    rows = json.loads(render_sheet(sheet, "json"))
    assert [tuple(row) for row in rows] == [FIELDS] * 4
    assert rows[2]["verdict"] == "outside"
    parsed = list(csv.DictReader(io.StringIO(render_sheet(sheet, "csv"))))
    assert parsed == [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]
    with pytest.raises(UserError, match="not printed as 'latex'; known: csv, json, markdown"):
        render_sheet(sheet, "latex")
