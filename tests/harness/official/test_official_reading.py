"""OCRBench, ChartQA, DocVQA, InfographicVQA, RealWorldQA and AI2D, through the official tasks."""

from __future__ import annotations

import json

import pytest


def test_ocrbench_looks_for_an_answer_in_what_was_said_and_counts_of_those_asked(play) -> None:
    played = play("ocrbench", ["The sign says EXIT.", "Acme", "x^2 + y", "12/03/1998"])
    assert played.scores == [1, 1, 0, 0], "a formula keeps its case"
    assert played.outcome.metrics == {"ocrbench_accuracy": 0.002}
    assert played.outcome.score == pytest.approx(500), "two of four, of a thousand"
    assert played.outcome.stderr == pytest.approx(1000 * (1 / 12) ** 0.5)
    assert [sample.category for sample in played.outcome.samples][:2] == ["Regular Text Recognition", "Scene Text-centric VQA"]
    assert played.longest == {128}


def test_ocrbench_counts_every_cell_from_zero(play) -> None:
    right = ["exit", "acme", "x^2+Y", "12/03/98"]
    assert [play("ocrbench", right).outcome.score for _ in range(2)] == pytest.approx([1000, 1000])


@pytest.mark.parametrize(
    ("answer", "right"), [("42", 1), ("42.1", 0), ("38", 1), ("37.9", 0), ("40.0 cm", 0), ("about 40", 0), ("4000%", 1)]
)
def test_chartqa_allows_five_per_cent_of_a_number_that_stands_alone(answer, right, play) -> None:
    assert play("chartqa", [answer, "x", "x", "x", "x"]).scores[0] == right


def test_chartqa_scores_words_exactly_and_keeps_its_halves(play) -> None:
    played = play("chartqa", ["40", "peru", "0.25", "1200", "0.5"])
    assert played.scores == [1, 1, 1, 1, 0]
    assert played.outcome.score == 80
    assert played.outcome.metrics == {"relaxed_overall": 0.8, "relaxed_human_split": 1.0, "relaxed_augmented_split": 0.5}
    assert [sample.category for sample in played.outcome.samples] == ["human_test"] * 3 + ["augmented_test"] * 2
    assert played.longest == {16}


def test_docvqa_gives_points_for_nearly_right_letters(play) -> None:
    #                              exact      one of eight wrong   1,200 in 7 letters   nothing in common
    played = play("docvqa", ["1 APRIL", "J. Smyth", "1,200", "none"])
    assert played.scores == pytest.approx([1, 7 / 8, 5 / 7, 0])
    assert played.outcome.score == pytest.approx(100 * (1 + 7 / 8 + 5 / 7) / 4)
    assert [sample.category for sample in played.outcome.samples][:2] == ["handwritten, form", "layout"]
    assert len({sample.image for sample in played.outcome.samples}) == 3, "questions on one page share its name"
    assert played.longest == {32}


def test_infovqa_takes_the_nearest_answer_and_nothing_below_a_half(play) -> None:
    played = play("infovqa", ["30 %", "21", "Lim"])
    assert played.scores == pytest.approx([1, 0, 3 / 4])
    assert played.outcome.score == pytest.approx(100 * (1 + 3 / 4) / 3)
    assert [sample.category for sample in played.outcome.samples] == [
        "single span",
        "non-extractive",
        "single span, question span",
    ]
    assert played.longest == {32}


def test_realworldqa_reads_letters_and_compares_words(play) -> None:
    played = play("realworldqa", ["(B) right", "Two", "downhill.", "A"])
    assert played.scores == [1, 0, 1, 0], "a number must be in digits where the truth is"
    assert played.outcome.score == 50
    assert played.longest == {16}


def test_ai2d_reads_a_letter_or_a_letter_with_a_point(play) -> None:
    played = play("ai2d", ["B", "a. growth", "D. adult", "(C)"])
    assert [json.loads(sample.detail) for sample in played.outcome.samples] == [{"exact_match": s} for s in (1.0, 0.0, 1.0, 1.0)]
    assert played.outcome.score == 75
    assert played.cell.benchmark.metric == "exact_match,flexible-extract"
    assert played.longest == {16}
