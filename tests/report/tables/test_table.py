from __future__ import annotations

import random

import pytest

from vtpbench.harness.records.answer_shares import AnswerShares
from vtpbench.pruners.errors import UserError
from vtpbench.report.formats.render import FORMATS, render
from vtpbench.report.stats.build import build
from vtpbench.report.tables.table import Table, TableRow


def rows(table: Table) -> dict[tuple[str, str], TableRow]:
    return {(block.title, row.label): row for block in table.blocks for row in block.rows}


def test_blocks_are_vanilla_first_then_by_falling_budget(matrix) -> None:
    (table,) = build(matrix)
    titles = [block.title for block in table.blocks]
    assert titles == ["All 144 tokens", "Retain 33.33 % (48 tokens on average)", "Retain 16 tokens (11.1 %)"]
    assert table.columns == ("GQA", "MME", "POPE")


def test_order_given_by_the_caller_comes_first(matrix) -> None:
    (table,) = build(matrix, benchmarks=["POPE"], pruners=["random", "FastV"])
    assert table.columns == ("POPE", "GQA", "MME")
    assert [row.label for row in table.blocks[1].rows] == ["random", "FastV"]


@pytest.mark.parametrize("shuffle", range(5))
@pytest.mark.parametrize("form", FORMATS)
def test_order_of_records_does_not_matter(matrix, record, shuffle: int, form: str) -> None:
    records = [*matrix, *(record(p, "GQA", 40.0 + i, limit=20, batch=8) for i, p in enumerate(["vanilla", "random"])), matrix[0]]
    expected = render(build(records), form)
    random.Random(shuffle).shuffle(records)
    assert render(build(records), form) == expected


def test_seeds_are_averaged_and_their_spread_is_kept(record) -> None:
    records = [record("vanilla", b, 80.0) for b in ("A", "B")]
    records += [record(benchmark=b, seed=s, score=score) for b in ("A", "B") for s, score in enumerate([40.0, 44.0, 48.0])]
    (table,) = build(records)
    row = table.blocks[1].rows[0]
    assert (row.entries[0].score, row.entries[0].spread, row.entries[0].relative) == (44.0, 4.0, 55.0)
    assert (row.average, row.average_spread, row.n) == (55.0, 5.0, 2)


def test_a_seed_that_failed_is_named_and_the_others_count(record) -> None:
    failed = record(seed=1, status="failed", reason="Trace\nKeyError: 'x'")
    (table,) = build([record("vanilla", score=80.0), record(seed=0, score=40.0), failed])
    entry = table.blocks[1].rows[0].entries[0]
    assert (entry.status, entry.score, entry.spread) == ("ok", 40.0, None)
    assert table.notes == ("failed: KeyError: 'x'",)
    assert entry.notes == (1,)


def test_average_is_over_the_benchmarks_present(matrix) -> None:
    (table,) = build(matrix)
    row = rows(table)["Retain 33.33 % (48 tokens on average)", "FastV"]
    assert [entry.status for entry in row.entries] == ["ok", "failed", "missing"]
    assert row.n == 1
    assert row.average == pytest.approx(100 * 73.4 / 86.25)


def test_cells_without_a_score_say_why_once(matrix) -> None:
    (table,) = build(matrix)
    row = rows(table)["Retain 16 tokens (11.1 %)", "FastV"]
    assert {entry.status for entry in row.entries} == {"infeasible"}
    assert {entry.notes for entry in row.entries} == {(3,)}
    assert table.notes[2] == "infeasible: 16 of 144 is below the 36 that two full layers of 8 cost"


def test_without_vanilla_there_is_a_score_but_no_relative_accuracy(record) -> None:
    (table,) = build([record("vanilla", "POPE", 80.0), record("random", "GQA", 40.0), record("random", "POPE", 60.0)])
    row = table.blocks[1].rows[0]
    assert (row.entries[0].score, row.entries[0].relative) == (40.0, None)
    assert (row.average, row.n) == (75.0, 1)
    why = "no relative accuracy: no vanilla score of this benchmark in the same setting"
    assert table.notes == ("missing: no record yet", why)


def test_vanilla_that_scores_zero_is_no_denominator(record) -> None:
    (table,) = build([record("vanilla", score=0.0), record(score=40.0)])
    assert table.blocks[1].rows[0].average is None
    assert table.notes == ("no relative accuracy: vanilla scores 0",)


def test_observed_tokens_are_a_mean_and_titles_cope_with_dynamic_models(record) -> None:
    dynamic = {"vision_tokens": None}
    records = [record("vanilla", "A", 80.0, model=dynamic)]
    for seed, seen in enumerate([15.9, 16.2]):
        records.append(record(benchmark="A", ratio=0.111, tokens=None, observed=seen, seed=seed, model=dynamic))
    (table,) = build(records)
    titles = [block.title for block in table.blocks]
    assert titles == ["All tokens (144 on average)", "Retain 11.1 % (16 tokens on average)"]
    assert table.blocks[1].rows[0].observed == pytest.approx(16.05)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"limit": 20}, ("no limit", "limit 20")),
        ({"batch": 4}, ("batch size 16", "batch size 4")),
        ({"model": {"dtype": "bfloat16"}}, ("dtype bfloat16", "dtype float32")),
        ({"versions": {"vtpbench": "0.1.0", "torch": "2.13.0"}}, ("torch 2.12.0", "torch 2.13.0")),
    ],
)  # fmt: skip
def test_other_settings_are_other_tables_with_their_own_vanilla(record, change, told) -> None:
    names = ("A", "B")
    records = [record(p, b, s) for b in names for p, s in (("vanilla", 80.0), ("random", 40.0))]
    records += [record(p, b, s, **change) for b in names for p, s in (("vanilla", 50.0), ("random", 40.0))]
    tables = build(records)
    assert sorted(table.title.removeprefix("tiny-llava · suite demo · ") for table in tables) == sorted(told)
    assert sorted(table.blocks[1].rows[0].average for table in tables) == [50.0, 80.0]


def test_only_the_benchmark_that_differs_is_named_in_the_heading(record) -> None:
    records = [record("vanilla", "A"), record("vanilla", "B")]
    other = record("vanilla", "A", 70.0, created="2025-01-01")
    other = other.model_copy(update={"benchmark": other.benchmark.model_copy(update={"dataset": "older"}), "cell_id": "other"})
    new, old = build([*records, other])
    assert (new.title, new.columns) == ("tiny-llava · suite demo · A: dataset data-of-A", ("A", "B"))
    assert (old.title, old.columns) == ("tiny-llava · suite demo · dataset older", ("A",))


def test_limits_of_single_benchmarks_do_not_split_a_table(record) -> None:
    (table,) = build([record("vanilla", "A", limit=20), record("vanilla", "B")])
    assert table.columns == ("A", "B")


def test_python_version_and_unknown_batch_do_not_split_a_table(record) -> None:
    vanilla = record("vanilla")
    versions = {**vanilla.environment.versions, "python": "3.12.1"}
    records = [vanilla, record("random", versions=versions), record("fastv", status="infeasible", batch=None)]
    assert len(build(records)) == 1


def test_rows_that_differ_in_their_trained_files_say_so(record) -> None:
    one = record("fastv", score=60.0)
    trained = [
        one.model_copy(update={"pruner": one.pruner.model_copy(update={"fingerprint": each * 16}), "cell_id": each})
        for each in "ab"
    ]
    (table,) = build(trained)
    assert [row.label for row in table.blocks[0].rows] == ["fastv (files aaaaaaaa)", "fastv (files bbbbbbbb)"]


def test_one_label_for_two_pruners_gives_two_rows_that_say_what_differs(record) -> None:
    records = [record("vanilla", score=80.0), *(record("fastv", label="FastV", options={"layer": k, "x": 1}) for k in (2, 3))]
    (table,) = build(records)
    assert [row.label for row in table.blocks[1].rows] == ["FastV (layer=2)", "FastV (layer=3)"]


def test_copies_of_a_cell_count_once_and_a_result_beats_a_failure(record) -> None:
    good = record(score=40.0)
    failed = good.model_copy(update={"status": "failed", "score": None, "created": "2027"})
    (table,) = build([record("vanilla", score=80.0), good, failed, good])
    assert len(table.blocks[1].rows[0].entries[0].records) == 1
    assert table.notes == ()


def test_two_results_of_one_cell_are_refused(record) -> None:
    one = record(score=40.0)
    with pytest.raises(UserError, match=f"cell {one.cell_id} of suite 'demo' has two results, 40 and 41"):
        build([one, one.model_copy(update={"score": 41.0})])


def test_two_versions_of_vanilla_that_disagree_are_refused(record) -> None:
    one = record("vanilla", score=80.0)
    other = one.model_copy(update={"pruner": one.pruner.model_copy(update={"code": "new"}), "cell_id": "new", "score": 81.0})
    with pytest.raises(UserError, match="vanilla results on 'GQA' disagree"):
        build([one, other])


def test_footer_names_what_a_reader_must_know(matrix) -> None:
    (table,) = build(matrix)
    facts = dict(table.footer)
    assert facts["GQA"] == "100 \N{MULTIPLICATION SIGN} exact_match of demo_gqa, split test, 240 samples, data data-of-GQA"
    assert facts["Seeds"] == "FastV, vanilla: 0; random: 0, 1, 2 (± = standard deviation over seeds)"
    assert "torch 2.12.0" in facts["Engine"]
    assert "batch size 16" in facts["Engine"]
    assert "float32" in facts["Model"]


def test_vanilla_that_failed_leaves_scores_without_a_ratio(record) -> None:
    (table,) = build([record("vanilla", status="failed", reason="Trace\nOSError: disk", model={"vision_tokens": None}),
                      record(score=40.0, model={"vision_tokens": None})])  # fmt: skip
    assert table.blocks[0].title == "All tokens (144 on average)"
    assert table.blocks[0].rows[0].entries[0].status == "failed"
    assert (table.blocks[1].rows[0].entries[0].score, table.blocks[1].rows[0].n) == (40.0, 0)


def test_no_records_no_tables() -> None:
    assert build([]) == ()


def test_answers_of_a_model_that_broke_are_marked_below_the_table(record) -> None:
    equal = AnswerShares(empty=0.0, at_limit=0.0, most_common=1.0, text="yes", most_common_target=0.5)
    (table,) = build([record("vanilla", score=80.0), record(score=40.0).model_copy(update={"answers": equal})])
    entry = table.blocks[1].rows[0].entries[0]
    assert (entry.score, entry.relative) == (40.0, 50.0)
    assert [table.notes[n - 1] for n in entry.notes] == ["all 240 answers are equal ('yes')"]


def test_rows_that_leave_out_other_questions_than_vanilla_have_no_relative_accuracy(record) -> None:
    def row(pruner: str, *skipped: str):
        return record(pruner, score=40.0).model_copy(update={"skipped": dict.fromkeys(skipped, "broken")})

    (table,) = build([row("vanilla", "1", "3"), row("random", "1", "3"), row("FastV", "1")])
    same, other = (rows(table)[table.blocks[1].title, name].entries[0] for name in ("random", "FastV"))
    assert (same.relative, other.relative) == (100.0, None)
    assert [table.notes[n - 1] for n in other.notes] == [
        "no relative accuracy: other questions were left out here than of vanilla's"
    ]
    assert any("1, 2 questions left out that cannot be asked (such as 1: broken)" in text for _, text in table.footer)


@pytest.mark.parametrize(("asked", "said"), [(1000, False), (50, True)])
def test_a_score_of_those_asked_is_said_to_be_one_where_its_task_divides_by_more(asked: int, said: bool, record) -> None:
    one = record("vanilla", "OCRBench", 40.0, limit=asked)
    metric = one.benchmark.model_copy(update={"metric": "ocrbench_accuracy", "scale": 1000})
    (table,) = build([one.model_copy(update={"benchmark": metric})])
    (text,) = (text for name, text in table.footer if name == "OCRBench")
    assert (", divided by the samples where the task divides by 1000" in text) == said
