"""RefCOCO's boxes, through the official task."""

from __future__ import annotations

import pytest

# In pictures of 100 x 50, as fractions: the cup (0.1, 0.2, 0.4, 0.6), the spoon (0.5, 0, 1, 1), the man (0, 0, 0.2, 1).
EXACT = ["[0.1, 0.2, 0.4, 0.6]", "[0.1, 0.2, 0.4, 0.6]", "[0.5, 0.0, 1.0, 1.0]", "[0.00, 0.00, 0.20, 1.00]"]


def test_every_description_of_an_object_is_asked(play) -> None:
    played = play("refcoco", EXACT)
    assert played.scores == [1, 1, 1, 1]
    assert played.outcome.score == 100
    assert played.outcome.metrics["refcoco_IoU"] == pytest.approx(1)
    assert len({sample.image for sample in played.outcome.samples}) == 2, "descriptions in one picture share its name"
    assert played.longest == {1024}


def test_a_box_is_right_if_it_overlaps_by_half(play) -> None:
    #        two thirds of it   the first box counts          the wrong half      no box
    says = ["[0.1,0.2,0.3,0.6]", "at [0.1, 0.2, 0.2, 0.6] or [0.1, 0.2, 0.4, 0.6]", "[0, 0, 0.5, 1]", "on the left"]
    played = play("refcoco", says)
    assert played.scores == [1, 0, 0, 0]
    assert played.outcome.score == 25
    assert played.outcome.metrics["refcoco_IoU"] == pytest.approx((2 / 3 + 1 / 3) / 4)
    assert played.outcome.metrics["refcoco_ACC@0.3"] == 0.5
    assert played.outcome.metrics["refcoco_Center_ACC"] == 0.75, "no box is one at the upper left corner, where the man is"


def test_boxes_in_pixels_are_wrong(play) -> None:
    assert play("refcoco", ["[10, 10, 40, 30]"] * 4).outcome.score == 0


@pytest.mark.parametrize("metric", ["refcoco_IoU", "refcoco_ACC@0.1", "refcoco_ACC@0.7", "refcoco_ACC@0.9", "refcoco_Center_ACC"])
def test_the_other_metrics_have_scores_of_single_questions_that_add_up(metric, play) -> None:
    played = play("refcoco", ["[0.1,0.2,0.3,0.6]", "[0.1,0.2,0.38,0.6]", "[0.4,0,0.8,1]", "[0.9,0,1,1]"], metric=metric)
    assert sum(played.scores) / 4 * 100 == pytest.approx(played.outcome.score)
    assert 0 < played.outcome.score < 100
