"""What makes the host wait for a GPU: the detector, and that nothing does between the tower and the first token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vtpbench.harness.efficiency.stages import Prompts, Subject
from vtpbench.harness.efficiency.waits import Wait, waits_before_first_token, watching
from vtpbench.harness.models.family import Family
from vtpbench.harness.models.layout import Layout, Part
from vtpbench.harness.record import BudgetInfo
from vtpbench.pruners.base import Pruner, TokenView
from vtpbench.pruners.registry import build, entries
from vtpbench.pruners.sending import STAGED_BYTES, send

DEVICE = torch.device("cpu")
X = torch.arange(6.0)
VALUE, UP, DOWN, MASK = "a value is read", "a copy to the device", "a copy to the host", "an index that is a mask"
LARGE = STAGED_BYTES // 4 + 1

WAITING: list[tuple[Callable[[], object], str]] = [
    (lambda: X[0].item(), VALUE),
    (lambda: bool((X > 0).all()), VALUE),
    (lambda: int(X[1]), VALUE),
    (lambda: float(X[1]), VALUE),
    (lambda: list(range(X[1].long())), VALUE),
    (lambda: X.tolist(), VALUE),
    (lambda: X.numpy(), VALUE),
    (lambda: f"{X[0]}", VALUE),
    (lambda: torch.equal(X, X), VALUE),
    (lambda: torch.allclose(X, X), VALUE),
    (lambda: 3.0 in X, VALUE),
    (lambda: X.cpu(), DOWN),
    (lambda: X.to("cpu"), DOWN),
    (lambda: X.nonzero(), "nonzero"),
    (lambda: torch.where(X > 2), "nonzero"),
    (lambda: X.masked_select(X > 2), "masked_select"),
    (lambda: X.unique(), "unique"),
    (lambda: X.repeat_interleave(X.long()), "repeat_interleave"),
    (lambda: X.long().bincount(), "bincount"),
    (lambda: X[X > 2], MASK),
    (lambda: X.clone().index_put_((X > 2,), X[3:]), MASK),
    (lambda: X[[0, 2]], "an index from a Python list"),
    (lambda: X[torch.tensor([0, 2])], "a tensor of the host among those of the device"),
    (lambda: X.clone().copy_(torch.zeros(6)), "a copy"),
    (lambda: torch.tensor([1, 2], device=DEVICE), UP),
    (lambda: X.new_tensor([1, 2]), UP),
    (lambda: torch.zeros(2).to(DEVICE), UP),
    (lambda: torch.zeros(LARGE).to(DEVICE, non_blocking=True), UP),
    (lambda: X + torch.zeros(6).to(DEVICE, torch.float64), UP),
    (lambda: torch.where(X > 2, torch.tensor(1.0), X), UP),
]
PASSING: list[Callable[[], object]] = [
    lambda: (X.sort().values.cumsum(0) + 2).softmax(0).argmax(),
    lambda: torch.arange(6, device=DEVICE)[X.long()],
    lambda: torch.where(X > 2, X, 0.0).masked_fill(X > 1, -1),
    lambda: torch.where(X > 2, 1.0, 0.0) * torch.tensor(2.0),
    lambda: X.clone().masked_scatter_(X > 2, X),
    lambda: X.clone().__setitem__(X > 2, 0.0),
    lambda: X.repeat_interleave(2),
    lambda: torch.as_tensor(X),
    lambda: torch.tensor([3, 4]).new_tensor([5]),
    lambda: X.to(DEVICE, torch.int64),
    lambda: X.to(torch.float64).clone()[2:],
    lambda: torch.tensor([3, 4]).sum().item(),
    lambda: (2 * torch.tensor([3, 4]) + 1)[torch.tensor([True, False])].tolist(),
    lambda: X[torch.tensor([1, 2]).to(DEVICE, non_blocking=True)],
    lambda: send(torch.zeros(2), DEVICE) + X[:2],
    lambda: send(torch.zeros(LARGE), DEVICE),
    lambda: torch.zeros(0).to(DEVICE),
    lambda: Layout(((Part(3), Part(2, 0)), (Part(4),))).valid(DEVICE) & X[:5].bool(),
]


def numbered(values: list) -> list:
    return [pytest.param(value, id=str(n)) for n, value in enumerate(values)]


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("case", numbered(WAITING))
def test_what_waits_is_found_once_where_it_is_written(case: tuple[Callable[[], object], str], inference: bool) -> None:
    run, what = case
    with torch.inference_mode(inference), watching() as waits:
        run()
    assert [wait.what for wait in waits] == [what]
    assert (waits[0].module, waits[0].function, waits[0].line) == (__name__, "<lambda>", run.__code__.co_firstlineno)
    assert not waits[0].in_pruner


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("run", numbered(PASSING))
def test_what_does_not_wait_passes(run: Callable[[], object], inference: bool) -> None:
    with torch.inference_mode(inference), watching() as waits:
        run()
    assert waits == []


def test_nothing_is_found_after_the_context() -> None:
    with watching() as waits:
        pass
    X[0].item()
    assert waits == []


OPTIONS = {"oc-vtp": {"checkpoint": "dummy"}}
QWEN = {"pyramiddrop": {"positions": "keep"}, "sparsevlm": {"positions": "keep"}, "tome": {"stage": "post"}}
FAMILIES = {"llava": 10, "llava_next": 40, "qwen2_5_vl": 18}
"""Each with a budget."""


def found(family: Family, pruner: Pruner, budget: int, tools, images: int = 1) -> list[Wait]:
    pictures = [tools.picture(48, 48, seed) for seed in range(images)]
    return waits_before_first_token(Subject(family, pruner, BudgetInfo(tokens=budget)), Prompts(pictures, "Why?", 2))


def pruners() -> list[str]:
    return sorted(name for name, entry in entries().items() if entry.distribution == "vtpbench")


@pytest.mark.parametrize("name", pruners())
@pytest.mark.parametrize("model", FAMILIES)
def test_nothing_of_ours_waits_between_the_tower_and_the_first_token(model: str, name: str, tiny, tools) -> None:
    options = QWEN.get(name, {}) if model == "qwen2_5_vl" else {}
    waits = found(tiny(model), build(name, {**OPTIONS.get(name, {}), **options}), FAMILIES[model], tools, images=2)
    assert [wait for wait in waits if wait.own or wait.in_pruner] == []
    assert {wait.module.split(".")[0] for wait in waits} == {"transformers"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("oc-vtp", {"checkpoint": "dummy", "pad": "random"}),
        ("oc-vtp", {"checkpoint": "dummy", "seed": None}),
        ("sparsevlm", {"version": "2"}),
        ("hiprune", {"neighbours": "grid", "alpha": 0.5}),
        ("visionzip", {"contextual": 0}),
    ],
)
def test_nor_with_other_options(name: str, options: dict[str, object], tiny, tools) -> None:
    assert not any(wait.own or wait.in_pruner for wait in found(tiny("llava"), build(name, options), 10, tools))


REMAINING = {
    ("_fit", DOWN): "the search for a budget that newlines fill asks what it has found, about 12 times an image",
    ("pack", DOWN): "how many newlines follow depends on the choice; once an image",
    ("select", VALUE): "how many tokens are left of each image is known to the device alone; once for many images",
}
"""Of the harness, never of a pruner, with LLaVA-NeXT's preprocessing `native`."""


def test_what_remains_is_known(tiny, tools) -> None:
    waits = found(tiny("llava_next", preprocessing="native"), build("random", {}), 40, tools, images=2)
    assert {(wait.function, wait.what) for wait in waits if wait.own} == REMAINING.keys()
    assert not any(wait.in_pruner for wait in waits)
    assert sum(wait.function == "select" for wait in waits) == 1


@dataclass(frozen=True)
class Asking(Pruner):
    """Reads a value in its own method, and draws on the host."""

    def score(self, view: TokenView) -> Tensor:
        if float(view.features.mean()) > 1e9:
            raise AssertionError
        return torch.rand(view.n).to(view.features.device).expand(view.features.shape[:2])


def test_a_pruner_that_waits_is_named(tiny, tools) -> None:
    waits = [wait for wait in found(tiny("llava"), Asking(), 10, tools) if wait.in_pruner]
    assert [(wait.what, wait.function, wait.module) for wait in waits] == [(VALUE, "score", __name__), (UP, "score", __name__)]
    assert waits[1].line == waits[0].line + 2
