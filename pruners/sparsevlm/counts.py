"""How many tokens stay, are recycled, and come out merged, at each of SparseVLM's cuts."""

from __future__ import annotations

from vtpbench.pruners.base import Cut, average_in
from vtpbench.pruners.budget import REFERENCE_TOKENS, bracket

Three = tuple[int, int, int]

LISTS: dict[str, dict[int, Three]] = {
    "1.5": {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)},
    "2": {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)},
}
"""The authors' lists for 576 tokens: by nominal budget, the tokens that stay unmerged after each cut."""


def recycled(pruned: int) -> int:
    """Of the pruned tokens, those that are merged: 30 %, rounded down in integers, and one."""
    return min(pruned, 3 * pruned // 10 + 1)


def clusters(pruned: int) -> int:
    """Rows that the recycled tokens are merged into."""
    return recycled(pruned) // 10 + 1 if pruned else 0


def list_cuts(at: tuple[int, ...], kept: tuple[int, ...], n: int, merging: bool) -> tuple[Cut, ...]:
    """Schedule in which `kept` tokens stay unmerged at each boundary; all that arrive where merging would leave no fewer."""
    result = []
    for layer, count in zip(at, kept, strict=True):
        merged = clusters(max(0, n - count)) if merging else 0
        left = min(n, count + merged)
        result.append(Cut(layer, left, merged if left < n else 0))
        n = left
    return tuple(result)


def fair_cuts(version: str, at: tuple[int, ...], budget: int, n: int, layers: int) -> tuple[Cut, ...]:
    """Schedule with the shape of the authors' nearest list, times one factor that gives the average nearest to `budget`.

    Small budgets meet a floor: one token stays at each cut, beside what the authors' rule merges of the pruned. Of 400 tokens in
    28 layers with cuts at 3, 6 and 14 these are 1 + 13, 1 + 1 and 2 + 0 tokens, 45.9 on average: the pruner refuses less.
    """
    nominal = min(LISTS[version], key=lambda tokens: abs(tokens / REFERENCE_TOKENS - budget / n))
    shape = [count * n / REFERENCE_TOKENS for count in LISTS[version][nominal]]

    def scaled(factor: float) -> tuple[Cut, ...]:
        return list_cuts(at, tuple(max(1, round(factor * count)) for count in shape), n, merging=version == "1.5")

    def average(factor: float) -> float:
        return average_in(scaled(factor), n, layers)

    # a factor of 576 lets all tokens stay, whatever the list
    nearest = min(bracket(average, budget, high=float(REFERENCE_TOKENS)), key=lambda factor: abs(average(factor) - budget))
    return scaled(nearest)
