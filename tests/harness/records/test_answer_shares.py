from __future__ import annotations

import pytest

from vtpbench.harness.records.answer_shares import AnswerShares, count_shares


def shares(texts: list[str], unended: int = 0, targets: list[str] | None = None) -> AnswerShares:
    found = count_shares(texts, [n >= unended for n in range(len(texts))], targets or ["yes", "no"] * (len(texts) // 2))
    assert found is not None
    return found


def test_shares_are_of_texts_without_regard_to_blanks() -> None:
    found = shares(["yes", " yes\n", "", "  ", "no", "yes", "a", "b", "c", "d"], unended=3)
    assert found == AnswerShares(empty=0.2, at_limit=0.3, most_common=0.3, text="yes", most_common_target=0.5)
    assert count_shares([], [], []) is None


@pytest.mark.parametrize(
    ("texts", "unended", "remarks"),
    [
        (["yes"] * 20, 0, ["all 20 answers are equal ('yes')"]),
        ([""] * 20, 0, ["all 20 answers are equal and empty"]),
        ([""] * 2 + ["yes"] * 9 + ["no"] * 9, 0, ["10 % of the answers are empty"]),
        ([str(n) for n in range(20)], 10, ["50 % of the answers never end, and were cut off at 32 tokens"]),
        (["yes"] * 19 + ["no"], 9, []),
        (["yes"] * 4, 4, []),
    ],
)
def test_what_looks_like_a_broken_model_is_remarked_upon(texts: list[str], unended: int, remarks: list[str]) -> None:
    assert shares(texts, unended).remarks(len(texts), 32) == remarks


def test_what_may_be_right_is_not_remarked_upon() -> None:
    assert shares(["yes"] * 20, 0, ["yes"] * 20).remarks(20, 32) == []
    assert shares([str(n) for n in range(20)], 20).remarks(20, 1) == []
