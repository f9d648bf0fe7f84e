from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vtpbench.pruners.oc_vtp.loss import Criterion, reconstruction_loss, token_weights

ALPHA = torch.tensor([[[0.6, 0.6, 0.5, 0.2], [0.3, 0.3, 0.3, 0.7], [0.1, 0.1, 0.2, 0.1]]])
TWO_SLOTS = ALPHA[:, :2] / ALPHA[:, :2].sum(1, keepdim=True)
ERROR = torch.tensor([[1.0, 2.0, 3.0, 4.0]])


def loss(alpha: Tensor, criterion: Criterion, error: Tensor = ERROR, valid: Tensor | None = None) -> float:
    """Feed errors as reconstructions of zero, one channel wide."""
    rebuilt = error.sqrt()[..., None]
    return float(reconstruction_loss(rebuilt, torch.zeros_like(rebuilt), alpha, criterion, valid))


@pytest.mark.parametrize(
    ("alpha", "criterion", "expected"),
    [
        (ALPHA, "aw-code", 2.599982),
        (TWO_SLOTS, "aw-code", 2.594391),
        (ALPHA, "aw-paper", 2.732051),
        (TWO_SLOTS, "aw-paper", 2.732051),
        (ALPHA, "mse", 2.5),
    ],
)
def test_worked_example(alpha: Tensor, criterion: Criterion, expected: float) -> None:
    assert loss(alpha, criterion) == pytest.approx(expected, abs=1e-5)


def test_worked_weights() -> None:
    expected = torch.tensor([[0.300293, 0.300293, 0.600164, 0.300395]])
    torch.testing.assert_close(token_weights(ALPHA, "aw-code"), expected, atol=1e-6, rtol=0)
    expected = torch.tensor([[0.910684, 0.910684, 0.933013, 1.148861]])
    torch.testing.assert_close(token_weights(TWO_SLOTS, "aw-code"), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("criterion", ["aw-code", "aw-paper", "mse"])
def test_filling_and_neighbours_change_nothing(criterion: Criterion) -> None:
    longer = torch.cat([ALPHA, torch.zeros(1, 3, 2)], dim=-1)
    valid = torch.tensor([[True, True, True, True, False, False]])
    error = torch.cat([ERROR, torch.full((1, 2), 9.0)], dim=-1)
    alone = loss(ALPHA, criterion)
    assert loss(longer, criterion, error, valid) == pytest.approx(alone)
    other = ALPHA.flip(-1)
    both = loss(torch.cat([ALPHA, other]), criterion, ERROR.repeat(2, 1))
    assert both == pytest.approx((alone + loss(other, criterion)) / 2)


def test_weights_carry_no_gradient() -> None:
    alpha, rebuilt = ALPHA.clone().requires_grad_(), ERROR[..., None].clone().requires_grad_()
    reconstruction_loss(rebuilt, torch.zeros(1, 4, 1), alpha, "aw-code").backward()  # type: ignore[no-untyped-call]  # torch
    assert alpha.grad is None
    assert rebuilt.grad is not None
