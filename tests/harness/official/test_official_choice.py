"""MMBench's circular groups, ScienceQA, SEED's slices and MMMU's parsing, through the official tasks."""

from __future__ import annotations

import json

import pytest

# Option 1 of each question is right; rotation k puts it to the letter (4 - k) mod 4, or (2 - k) mod 2.
ALL_RIGHT = ["A", "D", "C", "B"]


def test_mmbench_counts_a_question_if_all_its_rotations_are_right(play) -> None:
    first = ["A", "D.", "(C)", "The answer is B"]
    second = ["A", "D", "B", "B"]  # one rotation wrong
    third = ["sample one", "B"]  # an option's text instead of its letter
    fourth = ["??", "B"]  # nothing to read
    played = play("mmbench", [*first, *second, *third, *fourth])
    assert played.scores == [1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 1]
    assert played.outcome.metrics == {"gpt_eval_score": 50.0}
    assert played.outcome.score == 50.0
    groups = [json.loads(sample.detail)["gpt_eval_score"]["index"] % 1_000_000 for sample in played.outcome.samples]
    assert groups == [7] * 4 + [8] * 4 + [9] * 2 + [10] * 2
    assert played.longest == {1024}


@pytest.mark.parametrize(("wrong", "score"), [((), 100.0), ((0,), 75.0), ((1, 2, 3), 75.0), ((3, 4), 50.0), (range(12), 0.0)])
def test_mmbench_loses_whole_questions(wrong, score, play) -> None:
    right = [*ALL_RIGHT, *ALL_RIGHT, "A", "B", "A", "B"]
    other = {"A": "B", "B": "A", "C": "A", "D": "A"}
    played = play("mmbench", [other[letter] if i in wrong else letter for i, letter in enumerate(right)])
    assert played.outcome.score == score
    assert [i for i, row in enumerate(played.scores) if not row] == list(wrong)


def test_mmbench_sees_what_comes_behind_a_stop_text_as_llavas_adapters_show_it(play) -> None:
    right = [*ALL_RIGHT, *ALL_RIGHT, "A", "B", "A", "B"]
    says = [f"{letter} ASSISTANT: C, D" for letter in right]
    played = play("mmbench", says)
    assert [sample.answer for sample in played.outcome.samples] == says
    assert played.outcome.score < 100


def test_scienceqa_reads_a_letter_or_a_letter_with_a_point(play) -> None:
    played = play("scienceqa", ["A", "b", "A. iron", "The answer is B", "(A)"])
    assert played.scores == [1, 1, 1, 0, 0]
    assert played.outcome.score == pytest.approx(60)
    assert played.outcome.stderr == pytest.approx(100 * (0.6 * 0.4 / 4) ** 0.5)
    assert played.pictures == [1, 1, 0, 1, 1]
    assert [bool(sample.image) for sample in played.outcome.samples] == [True, True, False, True, True]
    assert played.outcome.observed.images == 4
    assert played.longest == {16}


SEED_ANSWERS = ["b", "D. a spoon", "B", "C", "The first"]


def test_seed_counts_all_questions_and_keeps_its_slices(play) -> None:
    played = play("seed", SEED_ANSWERS)
    assert played.scores == [1, 1, 0, 1, 0]
    assert played.outcome.score == 60
    assert played.outcome.metrics == {"seed_image": pytest.approx(2 / 3), "seed_video": 0.5, "seed_all": 0.6}
    assert played.pictures == [1, 1, 1, 3, 2]
    assert played.longest == {1024}


def test_seed_in_the_papers_profile_counts_pictures_only(play) -> None:
    played = play("seed", SEED_ANSWERS, profile="paper")
    assert played.outcome.score == pytest.approx(200 / 3)
    assert played.scores == [1, 1, 0, None, None]
    assert played.cell.benchmark.metric == "seed_image"


MMMU_ANSWERS = ["(B)", "A", "so x = 12.50", "It is an Ellipse.", "B, no: C", "A"]


def test_mmmu_parses_letters_numbers_and_words(play) -> None:
    played = play("mmmu", MMMU_ANSWERS)
    assert played.scores == [1, 1, 1, 1, 1, 0]
    assert played.outcome.score == pytest.approx(100 * round(5 / 6, 5))  # the task rounds
    details = [json.loads(sample.detail)["mmmu_acc"] for sample in played.outcome.samples]
    assert [detail["subdomain"] for detail in details] == ["Art", "Art", "Math", "Math", "Physics", "Physics"]
    assert [detail["parsed_pred"][0] for detail in details if detail["question_type"] != "open"] == ["B", "A", "C", "A"]
    assert played.pictures == [1, 2, 1, 1, 3, 1]
    assert played.longest == {128}


def test_mmmu_in_the_papers_profile_ends_answers_early(play) -> None:
    played = play("mmmu", MMMU_ANSWERS, profile="paper")
    assert played.longest == {16}
    assert played.cell.benchmark.generation["max_new_tokens"] == 16
    assert played.outcome.score == pytest.approx(100 * round(5 / 6, 5))


@pytest.mark.parametrize(("answer", "right"), [("12.5", 1), ("12.504", 1), ("12.6", 0), ("about 12.5 or 13", 1), ("twelve", 0)])
def test_mmmu_compares_numbers_to_two_decimals(answer, right, play) -> None:
    answers = [*MMMU_ANSWERS[:2], answer, *MMMU_ANSWERS[3:]]
    assert play("mmmu", answers).scores[2] == right


def test_mmmu_draws_a_letter_where_it_can_read_none_and_the_draw_is_repeatable(play) -> None:
    answers = ["??", "", "12.5", "ellipse", "--", "!"]
    first, second = play("mmmu", answers), play("mmmu", answers)
    drawn = [json.loads(sample.detail)["mmmu_acc"]["parsed_pred"] for sample in first.outcome.samples]
    assert drawn == [json.loads(sample.detail)["mmmu_acc"]["parsed_pred"] for sample in second.outcome.samples]
    assert drawn[0][0] in "ABCD"
    assert drawn[1][0] in "AB"
    right = [letter == [truth] for letter, truth in zip(drawn, "BA  CB", strict=True)]
    assert [first.scores[i] for i in (0, 1, 4, 5)] == [float(right[i]) for i in (0, 1, 4, 5)]


def test_mmstar_is_the_mean_of_its_sub_abilities_and_keeps_its_abilities(play) -> None:
    #                      topic: right | style: one of two | geometry: one of three
    played = play("mmstar", ["The answer is B", "A", "no letter", "C: 3", "B", "D."])
    assert played.scores == [1, 1, 0, 1, 0, 0]
    assert played.outcome.score == pytest.approx(100 * (1 + 1 / 2 + 1 / 3) / 3)
    assert played.outcome.metrics["coarse perception"] == pytest.approx((1 + 1 / 2) / 2)
    assert played.outcome.metrics["math"] == pytest.approx(1 / 3)
    assert [sample.category for sample in played.outcome.samples] == ["coarse perception"] * 3 + ["math"] * 3
    assert played.longest == {1024}
