"""Accuracy stands beside speed only where it is that of the same model, pruner and budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vtpbench.harness.models import dummy
from vtpbench.harness.records.efficiency import EfficiencyRecord
from vtpbench.harness.records.record import DUMMY, Record
from vtpbench.report.efficiency.table import build
from vtpbench.report.efficiency.text import grid, render
from vtpbench.report.html import html
from vtpbench.report.stats.build import build as build_accuracy

MakeRecord = Callable[..., Record]
MakeProfiled = Callable[..., EfficiencyRecord]


def shown(record: EfficiencyRecord, answers: list[Record]) -> list[float | None]:
    (table,) = build([record], build_accuracy(answers))
    return [row.accuracy for row in table.rows]


def with_options(record: EfficiencyRecord, row: int, **options: Any) -> EfficiencyRecord:
    rows = list(record.rows)
    rows[row] = rows[row].model_copy(update={"pruner": rows[row].pruner.model_copy(update={"options": options})})
    return record.model_copy(update={"rows": rows})


def with_model(record: EfficiencyRecord, **facts: Any) -> EfficiencyRecord:
    return record.model_copy(update={"model": record.model.model_copy(update=facts)})


@pytest.fixture
def answers(record: MakeRecord) -> list[Record]:
    return [
        record("vanilla", score=80.0, label="unpruned"),
        record("random", score=60.0),
        record("fastv", score=40.0, options={"layer": 1}),
    ]


@pytest.fixture
def profile(profiled: MakeProfiled) -> EfficiencyRecord:
    return with_options(profiled(random=(16,), fastv=(16,)), 2, layer=1)


def test_accuracy_of_the_same_rows_stands_beside_whatever_vanilla_is_called(profile, answers) -> None:
    assert shown(profile, answers) == [100.0, 75.0, 50.0]
    (table,) = build([profile], build_accuracy(answers))
    assert grid(table)[0][-1] == "accuracy %"
    assert dict(table.footer)["accuracy"] == "of tiny-llava, suite demo: mean over GQA; measured on real weights"
    (without,) = build([profile])
    assert grid(without)[0][-1] == "KV MiB"
    assert "accuracy" not in dict(without.footer)


def test_the_same_pruner_is_the_same_by_any_label(profile, answers) -> None:
    called = answers[2].pruner.model_copy(update={"label": "FastV (ours)"})
    assert shown(profile, [*answers[:2], answers[2].model_copy(update={"pruner": called})]) == [100.0, 75.0, 50.0]


@pytest.mark.parametrize("options", [{"layer": 5}, {}, {"layer": 1, "rows": "last"}])
def test_other_options_are_another_pruner(profile, answers, options: dict[str, Any]) -> None:
    assert shown(with_options(profile, 2, **options), answers) == [100.0, 75.0, None]


def test_another_pruner_by_the_same_label_is_none(profile, answers, record: MakeRecord) -> None:
    other = record("grid", score=70.0, label="random")
    assert shown(profile, [answers[0], answers[2], other]) == [100.0, None, 50.0]


@pytest.mark.parametrize(
    "facts",
    [
        {"vision_tokens": 576},
        {"family": "llava_next"},
        {"preprocessing": "pad"},
        {"label": "tiny"},
        {"weights": "of another training"},
    ],
)
def test_another_model_by_the_same_label_has_no_accuracy(profile, answers, facts: dict[str, Any]) -> None:
    (table,) = build([with_model(profile, **facts)], build_accuracy(answers))
    assert [row.accuracy for row in table.rows] == [None, None, None]
    assert "accuracy" not in dict(table.footer)


def test_a_model_with_more_layers_is_another(profile, answers) -> None:
    """LLaVA-1.5-7B and 13B share family, tokens and preprocessing."""
    deeper = [
        row.model_copy(update={"observed": row.observed.model_copy(update={"per_layer": [row.observed.tokens] * 2})})
        for row in profile.rows
        if row.observed is not None
    ]
    assert shown(profile.model_copy(update={"rows": deeper}), answers) == [None, None, None]


def test_a_label_in_other_letters_is_the_same_and_the_line_names_that_of_the_answers(profile, answers) -> None:
    (table,) = build([with_model(profile, label="Tiny-LLaVA")], build_accuracy(answers))
    assert [row.accuracy for row in table.rows] == [100.0, 75.0, 50.0]
    assert dict(table.footer)["accuracy"].startswith("of tiny-llava, suite demo:")


def test_real_weights_must_be_those_that_answered(profile, answers) -> None:
    assert shown(with_model(profile, weights=answers[0].model.weights), answers) == [100.0, 75.0, 50.0]
    assert shown(with_model(profile, weights=answers[0].model.weights, tower="other"), answers) == [None, None, None]


def test_answers_of_random_weights_are_no_accuracy(profile, record: MakeRecord) -> None:
    model = {"weights": "dummy"}
    assert shown(profile, [record("vanilla", score=80.0, model=model), record("random", model=model)]) == [None, None, None]


def test_another_budget_is_another_row(profile, record: MakeRecord, answers) -> None:
    assert shown(profile, [*answers[:1], record("random", tokens=48), record("random", tokens=None, ratio=1 / 9)]) == [None] * 3


def test_random_weights_are_called_what_the_harness_calls_them() -> None:
    assert DUMMY == dummy.DUMMY


def test_a_network_with_random_weights_stands_for_any_checkpoint(profile, answers, record: MakeRecord) -> None:
    drawn = with_options(profile, 2, checkpoint="dummy", layer=1)
    trained = record("fastv", score=72.0, options={"layer": 1, "checkpoint": "mine.safetensors"})
    assert shown(drawn, [*answers[:2], trained]) == [100.0, 75.0, 90.0]
    assert shown(with_options(profile, 2, checkpoint="dummy", layer=2), [*answers[:2], trained]) == [100.0, 75.0, None]
    other = record("fastv", score=64.0, options={"layer": 1, "checkpoint": "other.safetensors"})
    assert shown(drawn, [*answers[:2], trained, other]) == [100.0, 75.0, None]


def test_of_results_that_differ_none_is_shown_and_the_note_says_so(profile, answers, record: MakeRecord) -> None:
    versions = {"vtpbench-code": "numerics 2", "torch": "2.12.0"}
    newer = [record("vanilla", score=80.0, versions=versions), record("random", score=64.0, versions=versions)]
    tables = build_accuracy([*answers, *newer])
    assert len(tables) == 2
    (table,) = build([profile], tables)
    assert [row.accuracy for row in table.rows] == [100.0, None, 50.0]
    assert table.notes == ("random @ 16: no accuracy: results that fit differ (75.00, 80.00 %)",)
    agreed = [newer[0], record("random", score=60.0, versions=versions)]
    assert shown(profile, [*answers, *agreed]) == [100.0, 75.0, 50.0]


def test_a_trial_gives_way_to_the_full_run(profile, answers, record: MakeRecord) -> None:
    trial = [record("vanilla", score=80.0, limit=10), record("random", score=8.0, limit=10)]
    assert shown(profile, [*trial, *answers]) == [100.0, 75.0, 50.0]
    (alone,) = build([profile], build_accuracy(trial))
    assert [row.accuracy for row in alone.rows] == [100.0, 10.0, None]
    assert "mean over GQA (limit 10);" in dict(alone.footer)["accuracy"]


def test_averages_over_different_benchmarks_are_not_mixed(profile, answers, record: MakeRecord) -> None:
    other = [record("vanilla", "POPE", 90.0), record("fastv", "POPE", 45.0, options={"layer": 1})]
    other = [one.model_copy(update={"suite": "mine"}) for one in other]
    (table,) = build([profile], build_accuracy([*answers, *other]))
    assert [row.accuracy for row in table.rows] == [None, None, None]
    assert table.notes == ("accuracy is not shown: averages over different benchmarks fit (suite demo: GQA; suite mine: POPE)",)


def test_a_row_that_lacks_benchmarks_has_no_accuracy(profile, answers, record: MakeRecord) -> None:
    more = [record("vanilla", "POPE", 90.0), record("random", "POPE", 45.0), record("fastv", "POPE", status="failed",
            reason="x", options={"layer": 1})]  # fmt: skip
    (table,) = build([profile], build_accuracy([*answers, *more]))
    assert [row.accuracy for row in table.rows] == [100.0, 62.5, None]
    assert table.notes == ("fastv @ 16: no accuracy: benchmarks of vanilla's average are missing",)
    assert "mean over GQA, POPE;" in dict(table.footer)["accuracy"]


def test_the_page_shows_what_the_text_shows(profile, answers) -> None:
    options = with_options(profile, 2, layer=5)
    tables = build_accuracy(answers)
    text, page = render(build([options], tables), "markdown"), html(tables, efficiency=[options])
    assert "suite demo: mean over GQA; measured on real weights" in text
    assert "suite demo: mean over GQA; measured on real weights" in page
    assert '<td data-key="75.0">75.0</td>' in page
    assert '<td data-key="50.0">50.0</td>' not in page
