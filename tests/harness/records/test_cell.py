from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from vtpbench.harness.records.cell import tokens_for
from vtpbench.harness.records.record import BudgetInfo
from vtpbench.harness.suite.specs import Budget

PERMILLE = (1, 5, 56, 111, 125, 222, 250, 333, 334, 500, 667, 875, 999, 1000)
TOKENS = range(1, 600)


def share(permille: int) -> BudgetInfo:
    """Read a share of the tokens as a suite does."""
    read: BudgetInfo = TypeAdapter(Budget).validate_python(f"{permille / 10}%")
    return read


@pytest.mark.parametrize(
    ("percent", "n", "tokens"),
    [
        ("33.3%", 576, 192),  # 191.8
        ("22.2%", 576, 128),  # 127.9
        ("11.1%", 576, 64),  # 63.9
        ("22.2%", 2880, 639),  # 639.4
        ("5.6%", 2880, 161),  # 161.3
        ("33.3%", 144, 48),  # 48.0
    ],
)
def test_the_shares_of_papers_mean_their_counts(percent: str, n: int, tokens: int) -> None:
    assert tokens_for(TypeAdapter(Budget).validate_python(percent), n) == tokens


@pytest.mark.parametrize("permille", PERMILLE)
def test_a_share_is_the_nearest_count_but_at_least_one(permille: int) -> None:
    counts = [tokens_for(share(permille), n) for n in TOKENS]
    away = [abs(1000 * count - permille * n) for n, count in zip(TOKENS, counts, strict=True)]
    assert all(distance <= 500 or count == 1 for distance, count in zip(away, counts, strict=True))
    assert all(1 <= count <= n for n, count in zip(TOKENS, counts, strict=True))


def test_more_is_never_less() -> None:
    by_share = [[tokens_for(share(permille), n) for n in TOKENS] for permille in PERMILLE]
    assert all(counts == sorted(counts) for counts in by_share)
    assert all(list(counts) == sorted(counts) for counts in zip(*by_share, strict=True))


def test_a_count_is_capped_at_the_image_and_everything_is_everything() -> None:
    assert [tokens_for(BudgetInfo(tokens=64), n) for n in (30, 64, 100)] == [30, 64, 64]
    assert all(tokens_for(share(1000), n) == tokens_for(BudgetInfo(), n) == n for n in TOKENS)
