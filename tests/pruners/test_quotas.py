"""Shares of a budget, to the token."""

from __future__ import annotations

import pytest
import torch

from vtpbench.pruners.quotas import best_of_each, share_out


def dealt(quota: list[int], most: list[int], priority: list[int], total: int) -> list[int]:
    """The rule in plain steps."""
    given, left = list(quota), total - sum(quota)
    for part in priority[: max(0, left)]:
        given[part] += 1
    given = [min(n, limit) for n, limit in zip(given, most, strict=True)]
    while sum(given) < min(total, sum(most)):
        for part in priority:
            if given[part] < most[part] and sum(given) < total:
                given[part] += 1
    return given


@pytest.mark.parametrize(
    ("quota", "most", "priority", "total", "shares"),
    [
        ([2, 0, 3, 1], [4, 4, 4, 4], [3, 2, 0, 1], 6, [2, 0, 3, 1]),  # nothing is left
        ([1, 0, 2, 1], [4, 4, 4, 4], [2, 0, 3, 1], 6, [2, 0, 3, 1]),  # rounding has left two
        ([2, 1, 4, 2], [4, 4, 4, 4], [2, 0, 3, 1], 11, [4, 1, 4, 2]),  # the first cannot take its second
        ([0, 0, 9], [4, 1, 3], [2, 1, 0], 9, [4, 1, 3]),  # more than there are
        ([0, 0], [4, 4], [1, 0], 0, [0, 0]),
    ],
)
def test_golden(quota: list[int], most: list[int], priority: list[int], total: int, shares: list[int]) -> None:
    found = share_out(torch.tensor([quota]), torch.tensor(most), torch.tensor([priority]), total)
    assert found.tolist() == [shares] == [dealt(quota, most, priority, total)]


def test_agrees_with_plain_steps_for_every_image_of_a_batch() -> None:
    draw = torch.Generator().manual_seed(0)
    for _ in range(40):
        most = torch.randint(0, 6, (5,), generator=draw)
        total = int(torch.randint(0, int(most.sum()) + 1, (1,), generator=draw))
        weight = torch.rand(3, 5, generator=draw).softmax(1) * total
        quota, priority = weight.floor().long(), weight.argsort(dim=1, descending=True)
        found = share_out(quota, most, priority, total)
        assert found.tolist() == [
            dealt(q, most.tolist(), p, total) for q, p in zip(quota.tolist(), priority.tolist(), strict=True)
        ]
        assert found.sum(dim=1).tolist() == [total] * 3


def test_best_of_each_takes_the_lower_index_on_ties() -> None:
    score = torch.tensor([[[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]]])
    marked = best_of_each(score, torch.tensor([[1, 2]]))
    assert marked.tolist() == [[[False, True, False], [True, True, False]]]
