"""Models and pruners on a GPU that is only pretended: no operand on the wrong side, and nobody waits before the first token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from pretended_gpu import GPU, PretendedGpu, Wait, moved, pretended_gpu
from pruner_options import ONEVISION, QWEN, UNSUPPORTED, options_for
from rehearsal import rehearse
from torch import Tensor

from vtpbench.harness.efficiency.stages import Prompts, PrunerAtBudget
from vtpbench.harness.models.family import Family
from vtpbench.harness.pruning.layout import PromptLayout, Span
from vtpbench.harness.records.record import BudgetInfo
from vtpbench.pruners.base import Pruner, TokenView
from vtpbench.pruners.registry import build, entries
from vtpbench.pruners.transfer import STAGED_BYTES, copy_to_device

VALUE, UP, DOWN, MASK = "a value is read", "a copy to the device", "a copy to the host", "an index that is a mask"
LARGE = STAGED_BYTES // 4 + 1
Case = Callable[[Tensor], object]

WAITING: list[tuple[Case, str]] = [
    (lambda x: x[0].item(), VALUE),
    (lambda x: bool((x > 0).all()), VALUE),
    (lambda x: int(x[1]), VALUE),
    (lambda x: float(x[1]), VALUE),
    (lambda x: list(range(x[1].long())), VALUE),
    (lambda x: torch.equal(x, x), VALUE),
    (lambda x: torch.allclose(x, x), VALUE),
    (lambda x: 3.0 in x, VALUE),
    (lambda x: x.tolist(), DOWN),
    (lambda x: f"{x}", DOWN),
    (lambda x: x.cpu(), DOWN),
    (lambda x: x.to("cpu"), DOWN),
    (lambda x: x.to("cpu", non_blocking=True), DOWN),
    (lambda x: torch.zeros(6).copy_(x), DOWN),
    (lambda x: x.nonzero(), "nonzero"),
    (lambda x: torch.where(x > 2), "nonzero"),
    (lambda x: x.masked_select(x > 2), "masked_select"),
    (lambda x: x.unique(), "unique"),
    (lambda x: x.repeat_interleave(x.long()), "repeat_interleave"),
    (lambda x: x.long().bincount(), "bincount"),
    (lambda x: x[x > 2], MASK),
    (lambda x: x.clone().index_put_((x > 2,), x[3:]), MASK),
    (lambda x: x.clone().__setitem__(x > 2, x[0]), MASK),
    (lambda x: x[[0, 2]], UP),
    (lambda x: x[torch.tensor([0, 2])], "an index from the host"),
    (lambda x: x.clone().copy_(torch.zeros(6)), UP),
    (lambda x: torch.tensor([1, 2], device=GPU), UP),
    (lambda x: x.new_tensor([1, 2]), UP),
    (lambda x: torch.zeros(2).to(GPU), UP),
    (lambda x: torch.zeros(LARGE).to(GPU, non_blocking=True), UP),
    (lambda x: x + torch.zeros(6).to(GPU, torch.float64), UP),
    (lambda x: torch.where(x > 2, torch.tensor(1.0), x), UP),
]
PASSING: list[Case] = [
    lambda x: (x.sort().values.cumsum(0) + 2).softmax(0).argmax(),
    lambda x: torch.arange(6, device=GPU)[x.long()],
    lambda x: torch.where(x > 2, x, 0.0).masked_fill(x > 1, -1),
    lambda x: torch.where(x > 2, 1.0, 0.0) * torch.tensor(2.0),
    lambda x: x.clone().masked_scatter_(x > 2, x),
    lambda x: x.clone().__setitem__(x > 2, 0.0),
    lambda x: x.repeat_interleave(2),
    lambda x: torch.as_tensor(x),
    lambda x: torch.tensor([3, 4]).new_tensor([5]),
    lambda x: x.to(GPU, torch.int64),
    lambda x: x.to(torch.float64).clone()[2:],
    lambda x: torch.tensor([3, 4]).sum().item(),
    lambda x: (2 * torch.tensor([3, 4]) + 1)[torch.tensor([True, False])].tolist(),
    lambda x: x[torch.tensor([1, 2]).to(GPU, non_blocking=True)],
    lambda x: x.clone().copy_(torch.zeros(6), non_blocking=True),
    lambda x: copy_to_device(torch.zeros(2), GPU) + x[:2],
    lambda x: copy_to_device(torch.zeros(LARGE), GPU),
    lambda x: torch.zeros(0).to(GPU),
    lambda x: PromptLayout(((Span(3), Span(2, 0)), (Span(4),))).valid(GPU) & x[:5].bool(),
]
REFUSED: list[Case] = [
    lambda x: x + torch.zeros(6),
    lambda x: torch.cat([x, torch.zeros(1)]),
    lambda x: x.gather(0, torch.zeros(2, dtype=torch.int64)),
    lambda x: torch.zeros(6)[x.long()],
    lambda x: torch.zeros(6).add_(x),
]


def numbered(values: list) -> list:
    return [pytest.param(value, id=str(n)) for n, value in enumerate(values)]


@contextmanager
def pretended(inference: bool) -> Iterator[tuple[PretendedGpu, Tensor]]:
    with torch.inference_mode(inference), pretended_gpu() as gpu:
        x = torch.arange(6.0, device=GPU)
        yield gpu, x


both = pytest.mark.parametrize("inference", [True, False])


@both
@pytest.mark.parametrize("case", numbered(WAITING))
def test_what_waits_is_found_once_where_it_is_written(case: tuple[Case, str], inference: bool) -> None:
    run, what = case
    with pretended(inference) as (gpu, x):
        run(x)
    assert [wait.what for wait in gpu.waits] == [what]
    (wait,) = gpu.waits
    assert (wait.module, wait.function, wait.line) == (__name__, "<lambda>", run.__code__.co_firstlineno)
    assert not wait.in_pruner


@both
@pytest.mark.parametrize("run", numbered(PASSING))
def test_what_does_not_wait_passes(run: Case, inference: bool) -> None:
    with pretended(inference) as (gpu, x):
        run(x)
    assert gpu.waits == []


@both
@pytest.mark.parametrize("run", numbered(REFUSED))
def test_operands_on_both_sides_are_refused(run: Case, inference: bool) -> None:
    with pretended(inference) as (_, x), pytest.raises(RuntimeError, match="same device"):
        run(x)


@both
def test_values_are_those_of_the_host(inference: bool) -> None:
    with pretended(inference) as (_, x):
        y = x.clone()
        y[1:3] = x[4:]
        y.mul_(2).view(2, 3)[1] += 1
        assert (y.device, y.shape, y.dtype) == (GPU, (6,), torch.float32)
        assert y.tolist() == [0, 8, 10, 7, 9, 11]
        assert (x @ x).item() == 55


def test_what_is_launched_is_counted() -> None:
    with pretended(inference=True) as (gpu, x):
        gpu.launched = 0
        x.view(2, 3).T[0].expand(4, 2).unsqueeze(0).detach()
        torch.empty(3, device=GPU)
        torch.ones(3)
        assert gpu.launched == 0
        ((x + 1) * 2).sum()
        torch.zeros(3, device=GPU)
        assert gpu.launched == 4


def test_a_model_is_as_before_afterwards(tiny) -> None:
    model = tiny("llava").model
    before = {name: (id(x), x.device) for name, x in (*model.named_parameters(), *model.named_buffers())}
    with pretended_gpu(), moved(model):
        assert {x.device for x in (*model.parameters(), *model.buffers())} == {GPU}
    assert {name: (id(x), x.device) for name, x in (*model.named_parameters(), *model.named_buffers())} == before


def test_nothing_is_pretended_afterwards() -> None:
    with pretended(inference=False) as (_, x):
        pass
    with pytest.raises(RuntimeError, match="no longer there"):
        x + 1
    assert torch.zeros(1).device.type == "cpu"


FAMILIES = {"llava": 10, "llava_next": 40, "internvl": 10, **dict.fromkeys(QWEN, 18)}
"""Each with a budget; newlines of LLaVA-OneVision are searched for, see `REMAINING`."""


def found(family: Family, pruner: Pruner, budget: int, tools, images: int = 1) -> list[Wait]:
    pictures = [tools.picture(48, 48, seed) for seed in range(images)]
    return rehearse(PrunerAtBudget(family, pruner, BudgetInfo(tokens=budget)), Prompts(pictures, "Why?", 2)).waits


def cases() -> list[tuple[str, str]]:
    names = sorted(name for name, entry in entries().items() if entry.distribution == "vtpbench")
    return [(model, name) for model in FAMILIES for name in names if (name, model) not in UNSUPPORTED]


@pytest.mark.parametrize(("model", "name"), cases())
def test_nobody_waits_between_the_tower_and_the_first_token(model: str, name: str, tiny, tools) -> None:
    assert found(tiny(model), build(name, options_for(name, model)), FAMILIES[model], tools, images=2) == []


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
    ("_fit", DOWN): "the search for a budget that newlines fill asks what it has found, about 7 times an image",
    ("in_sequence", DOWN): "how many newlines follow depends on the choice; once an image",
    ("_select", DOWN): "how many tokens are left of each image is known to the device alone; once for many images",
}
"""Of the harness, never of a pruner, where rows end with newlines."""


@pytest.mark.parametrize(("model", "options"), [("llava_next", {"preprocessing": "native"}), (ONEVISION, {})])
def test_what_remains_is_known(model: str, options: dict[str, str], tiny, tools) -> None:
    waits = found(tiny(model, **options), build("random", {}), 40, tools, images=2)
    assert {(wait.function, wait.what) for wait in waits if wait.own} == REMAINING.keys()
    assert not any(wait.in_pruner for wait in waits)
    assert sum(wait.function == "_select" for wait in waits) == 1


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
