"""MME's pairs and POPE's F1, through the official tasks."""

from __future__ import annotations

import json

import pytest


def test_mme_counts_answers_and_pairs(play) -> None:
    #          existence: pair right | half right      OCR: pair wrong      code_reasoning: pair right
    answers = ["Yes.", "No, there is none", "yes", "Yes", "no", "maybe", "Y", "n"]
    played = play("mme", answers)
    assert played.scores == [1, 1, 1, 0, 0, 0, 1, 1]
    perception = ((100 + 100) + (50 + 0)) / 2 + 0  # a mean over the pairs of a category, a sum over categories
    assert played.outcome.metrics == {"mme_perception_score": perception, "mme_cognition_score": 200}
    assert played.outcome.score == perception + 200
    assert played.outcome.stderr is None
    assert [sample.category for sample in played.outcome.samples[3:7]] == ["existence", "OCR", "OCR", "code_reasoning"]
    assert played.longest == {16}


def test_mme_pairs_can_be_told_from_the_samples(play) -> None:
    played = play("mme", ["Yes", "No"] * 4)
    assert played.outcome.score == 600  # three categories, 200 each
    terms = [json.loads(sample.detail) for sample in played.outcome.samples]
    assert [next(iter(term)) for term in terms] == ["mme_perception_score"] * 6 + ["mme_cognition_score"] * 2
    pairs = [next(iter(term.values()))["question_id"] for term in terms]
    assert pairs[0::2] == pairs[1::2]
    assert len(set(pairs)) == 4


def test_pope_f1_from_hits_false_alarms_and_misses(play) -> None:
    # truth:   yes    yes   no     no    yes     no    yes    no
    answers = ["yes", "no", "yes", "no", "Yes.", "no", "YES", "no "]
    played = play("pope", answers)
    assert played.scores == [1, 0, 0, 1, 0, 1, 1, 1]  # `Yes.` is neither yes nor no
    hits, false_alarms, misses = 2, 1, 1  # ... and therefore no miss
    precision, recall = hits / (hits + false_alarms), hits / (hits + misses)
    assert played.outcome.metrics == {
        "pope_accuracy": 5 / 8,
        "pope_precision": pytest.approx(precision),
        "pope_recall": pytest.approx(recall),
        "pope_f1_score": pytest.approx(2 / 3),
        "pope_yes_ratio": 0.5,
    }
    assert played.outcome.score == pytest.approx(100 * 2 / 3)
    assert [sample.category for sample in played.outcome.samples] == ["random"] * 3 + ["popular"] * 3 + ["adversarial"] * 2
    assert len({sample.image for sample in played.outcome.samples}) == 2, "questions on one picture share its name"
    assert played.longest == {128}


def test_popes_yes_ratio_counts_the_truth(play) -> None:
    played = play("pope", ["no"] * 8)
    assert played.outcome.metrics["pope_yes_ratio"] == 0.5
    assert played.outcome.score == 0


def test_pope_accuracy_is_one_key_away(play) -> None:
    answers = ["yes", "no", "yes", "no", "Yes.", "no", "YES", "no "]
    played = play("pope", answers, metric="pope_accuracy", unit="accuracy, %")
    assert played.outcome.score == 62.5
    assert played.scores == [1, 0, 0, 1, 0, 1, 1, 1]
