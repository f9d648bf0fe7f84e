"""Questions about a picture lie side by side, each sees its prefix and itself, and none is lost."""

from __future__ import annotations

import random

import pytest
import torch

from vtpbench.harness.pruning.question_rows import MOST, WIDEST, QuestionRows, side_by_side


def drawn(seed: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Draw questions about some pictures: their pictures, their lengths, and the tokens of the prefixes."""
    draw = random.Random(seed)
    count = draw.randint(1, 6)
    pictures = [*range(count), *(draw.randrange(count) for _ in range(draw.randint(0, 20)))]
    prefixes = [draw.choice([draw.randint(1, 9), 9]) for _ in range(count)]
    return tuple(pictures), tuple(draw.randint(1, 7) for _ in pictures), tuple(prefixes)


@pytest.mark.parametrize("most", [1, MOST])
@pytest.mark.parametrize("seed", range(20))
def test_every_question_stands_once_behind_its_own_picture(seed: int, most: int) -> None:
    pictures, lengths, prefixes = drawn(seed)
    rows = side_by_side(pictures, lengths, prefixes, most)
    assert sorted(q for row in rows.questions for q in row) == list(range(len(pictures)))
    assert all(pictures[q] == picture for picture, row in zip(rows.pictures, rows.questions, strict=True) for q in row)
    assert max(map(len, rows.questions)) * min(lengths) <= most * max(lengths)
    assert rows.apart or most > 1
    assert rows.padded == (len(set(prefixes)) > 1 or len(set(lengths)) > 1)


@pytest.mark.parametrize("most", [1, MOST])
@pytest.mark.parametrize("seed", range(20))
def test_each_token_sees_its_prefix_and_what_precedes_it_in_its_question(seed: int, most: int) -> None:
    """Follow tokens by number: prompt `q` has tokens 100 q, 100 q + 1, ...; that of a picture's prefix is the picture's."""
    pictures, lengths, prefixes = drawn(seed)
    rows = side_by_side(pictures, lengths, prefixes, most)
    width = max(prefixes) + max(lengths)
    prompts = torch.full((len(pictures), width), -1)
    for q, length in enumerate(lengths):
        prompts[q, width - length :] = 100 * q + torch.arange(length)
    numbers = prompts.flatten()[rows.tokens(width)]
    prefix = torch.full((len(prefixes), rows.prefix), -1)
    for picture, length in enumerate(prefixes):
        prefix[picture, rows.prefix - length :] = -100 - picture
    held = torch.cat([prefix[list(rows.pictures)], numbers], dim=1)
    seen = rows.seen(torch.device("cpu"))
    for q, (row, column) in rows.places.items():
        for place in range(lengths[q]):
            own = held[row][seen[row, column + place]].tolist()
            expected = [-100 - pictures[q]] * prefixes[pictures[q]] + [100 * q + n for n in range(place + 1)]
            assert own == expected
    assert numbers.flatten()[rows.last()].tolist() == [100 * q + length - 1 for q, length in enumerate(lengths)]
    assert seen.any(dim=-1).all(), "a row of a softmax that sees nothing is no number"


@pytest.mark.parametrize("most", [1, MOST])
@pytest.mark.parametrize("seed", range(20))
def test_what_is_cached_of_a_question_is_its_prefix_and_itself(seed: int, most: int) -> None:
    pictures, lengths, prefixes = drawn(seed)
    rows = side_by_side(pictures, lengths, prefixes, most)
    row, columns = rows.cached()
    valid = rows.valid()
    assert columns.shape == valid.shape == (len(pictures), max(prefixes) + max(lengths))
    for q, (own, first) in rows.places.items():
        assert row[q] == own
        before = list(range(rows.prefix - prefixes[pictures[q]], rows.prefix))
        assert columns[q][valid[q]].tolist() == [*before, *(rows.prefix + first + n for n in range(lengths[q]))]
        assert valid[q, -1]


def test_one_question_a_picture_is_as_it_would_be_alone() -> None:
    rows = side_by_side((0, 1, 2), (4, 4, 4), (9, 9, 9), MOST)
    assert rows.apart
    assert not rows.padded
    assert rows.seen(torch.device("cpu")).tolist() == [[[True] * 9 + [column <= n for column in range(4)] for n in range(4)]] * 3


def test_a_long_prefix_is_read_for_several_and_rows_are_not_filled_with_padding() -> None:
    together = side_by_side((0,) * 4 + (1,) * 4, (5,) * 8, (600, 600), MOST)
    assert together.questions == ((0, 1, 2, 3), (4, 5, 6, 7))
    one_of_many = side_by_side((0,) * 8 + tuple(range(1, 9)), (25,) * 16, (60,) * 9, MOST)
    assert one_of_many.width < 8 * 25, "a row of eight would make all others as wide"
    assert one_of_many.cost <= QuestionRows((0,) * 16, tuple((q,) for q in range(16)), (25,) * 16, (60,) * 9).cost


def test_rows_of_long_questions_are_not_mostly_mask() -> None:
    assert side_by_side((0,) * 8, (400,) * 8, (611,), MOST).apart
    assert side_by_side((0,) * 8, (120,) * 8, (611,), MOST).width <= WIDEST
