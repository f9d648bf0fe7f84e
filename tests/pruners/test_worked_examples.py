"""Worked numbers of the specification that belong to no single method's golden example."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vtpbench.harness.efficiency.flops import Convention, Workload, count
from vtpbench.harness.models.dimensions import DecoderDimensions, Dimensions, TowerDimensions
from vtpbench.pruners.base import Cut, Evidence, Grid, ModelShape, TokenView, average_in
from vtpbench.pruners.errors import Infeasible
from vtpbench.pruners.fastv import FastV
from vtpbench.pruners.hiprune import HiPrune
from vtpbench.pruners.oc_vtp import OCVTP
from vtpbench.pruners.oc_vtp.checkpoint import Header, save
from vtpbench.pruners.oc_vtp.dims import Dims
from vtpbench.pruners.oc_vtp.network import OCPruner
from vtpbench.pruners.pyramiddrop import geometric
from vtpbench.pruners.sparsevlm.counts import LISTS, list_cuts
from vtpbench.pruners.visionzip import VisionZip

SHAPE = ModelShape("test", 32, 4, 32, 24, 32, 22, True, tuple(range(24)))

CLS, KEYS = Evidence("cls", 22), Evidence("keys", 22)
TOWER = TowerDimensions(24, 1024, 4096, 2, 588, 1, 1, None, 24, ())
LLAVA = Dimensions(TOWER, (1024, 4096, 4096), DecoderDimensions(32, 4096, 32, 32, 128, 11008, 32064))


def decoder(layers: int) -> ModelShape:
    return ModelShape("test", layers, 4, 32, 4, 32, 3, has_cls=True, full_attention=(0, 1, 2, 3))


@pytest.mark.parametrize(
    ("n", "layers", "floors"),
    [(576, 32, (18, 36, 54)), (2880, 32, (90, 180, 270)), (10_000, 28, (357, 714, 1071)), (10_000, 36, (278, 556, 833))],
)
def test_floors_of_layers_that_see_all_tokens(n: int, layers: int, floors: tuple[int, ...]) -> None:
    """Below K * n / layers nothing is left to keep; the smallest budget that works leaves one token in the other layers."""
    for layer, floor in enumerate(floors, start=1):
        assert round(layer * n / layers) == floor
        with pytest.raises(Infeasible, match="at least"):
            FastV(layer=layer).cuts(floor, n, decoder(layers))
        assert FastV(layer=layer).cuts(floor + 2, n, decoder(layers))


@pytest.mark.parametrize(
    ("cuts", "n", "layers", "average"),
    [
        ((Cut(2, 166),), 576, 32, 191.625),
        ((Cut(2, 144),), 576, 32, 171),
        ((Cut(3, 288),), 576, 32, 315),
        (geometric((8, 16, 24), 0.5, 576), 576, 32, 270),
        (geometric((8, 16, 24), 0.5, 2880), 2880, 32, 1350),
        (geometric((8, 16, 24), 0.5, 576), 576, 40, 230.4),
    ],
)
def test_averages_of_fastv_and_pyramiddrop(cuts: tuple[Cut, ...], n: int, layers: int, average: float) -> None:
    assert average_in(cuts, n, layers) == pytest.approx(average)


def leaving(cuts: tuple[Cut, ...], n: int) -> float:
    """Average that the authors of SparseVLM count: behind each of the 32 layers."""
    return average_in(tuple(Cut(cut.at - 1, cut.keep) for cut in cuts), n, 32)


@pytest.mark.parametrize(("nominal", "average"), [(192, 192.4375), (128, 128.0), (96, 96.8125), (64, 64.4375)])
def test_published_lists_of_sparsevlm_2_by_its_authors_count(nominal: int, average: float) -> None:
    assert leaving(list_cuts((3, 7, 16), LISTS["2"][nominal], 576, merging=False), 576) == average


@pytest.mark.parametrize(("kept", "average"), [((1500, 1000, 550), 958.9), ((1515, 550, 180), 640.6), ((330, 150, 85), 322.1)])
def test_lists_of_sparsevlm_times_five(kept: tuple[int, ...], average: float) -> None:
    assert leaving(list_cuts((3, 7, 16), kept, 2880, merging=True), 2880) == pytest.approx(average, abs=0.05)


@pytest.mark.parametrize(("nominal", "tera"), [(192, 1.776), (128, 1.375), (64, 0.959)])
def test_multiply_adds_of_sparsevlm(nominal: int, tera: float) -> None:
    """With 64 other tokens and three MLP matrices; the unpruned model takes 4.252 T."""
    first, second, third = (cut.keep for cut in list_cuts((3, 7, 16), LISTS["1.5"][nominal], 576, merging=True))
    entered = [576] * 3 + [first] * 4 + [second] * 9 + [third] * 16
    assert operations(entered, 64, "exact") / 2 == pytest.approx(tera, abs=5e-4)


def test_multiply_adds_of_pyramiddrop_at_2880_tokens() -> None:
    entered = [n for n in (2880, 1440, 720, 360) for _ in range(8)]
    assert operations([2880] * 32, 0, "exact") / 2 == pytest.approx(20.825, abs=5e-4)
    assert operations(entered, 0, "exact") / 2 == pytest.approx(9.465, abs=5e-4)


@pytest.mark.parametrize(("vision", "tera"), [(576, 8.07), (64, 1.25), (2880, 42.16), (160, 2.51)])
def test_table_4_with_the_third_mlp_matrix(vision: int, tera: float) -> None:
    assert operations([vision] * 32, 32, "exact") == pytest.approx(tera, abs=5e-3)


def operations(entered: list[int], text: int, convention: Convention) -> float:
    """Prefill of LLaVA-1.5-7B's decoder, in units of 1e12."""
    return sum(count(LLAVA, Workload(Grid(1, 24, 24), tuple(map(float, entered)), text), convention).prefill) / 1e12


@pytest.mark.parametrize(("budget", "rest", "step"), [(192, 415, 13), (128, 469, 23), (64, 523, 52), (32, 550, 110)])
def test_targets_of_visionzip_are_evenly_spaced(budget: int, rest: int, step: int) -> None:
    """CLS attends to the first tokens most, so that the rest is the last ones, in order."""
    scores = torch.arange(576.0, 0, -1)[None]
    evidence = {CLS: scores, KEYS: torch.randn(1, 576, 4, generator=torch.Generator().manual_seed(0))}
    index, cls = torch.arange(576)[None], torch.zeros(1, 1, 2)
    view = TokenView(Cut(0, budget), 0, torch.zeros(1, 576, 2), index, Grid(1, 24, 24), SHAPE, ("a",), evidence, cls)
    dominant, contextual = VisionZip().split(budget)
    assert 577 - dominant == rest
    chosen = VisionZip().apply(view).index[0].tolist()
    assert chosen[:dominant] == [-1, *range(dominant - 1)]
    assert chosen[dominant:] == [576 - rest + step * n for n in range(contextual)]


def test_anchors_and_buffers_of_hiprune() -> None:
    """Token 3 of a 4 x 4 picture: the authors' neighbours wrap to 4 and clamp to 0."""
    shallow, deep = torch.zeros(2, 1, 16)
    shallow[0, 3] = 1
    evidence = {Evidence("received", 8): shallow, Evidence("received", 22): deep}
    index = torch.arange(16)[None]
    view = TokenView(Cut(0, 8), 0, torch.zeros(1, 16, 1), index, Grid(1, 4, 4), SHAPE, ("a",), evidence)
    assert HiPrune(alpha=0.5).marked(view)[0].nonzero().flatten().tolist() == [0, 2, 3, 4, 7]
    assert HiPrune(alpha=0.5, neighbours="grid").marked(view)[0].nonzero().flatten().tolist() == [2, 3, 7]


@pytest.mark.parametrize(
    ("budget", "top_k", "slots"), [(64, 1, 65), (128, 2, 64), (64, 2, 32), (192, 3, 64), (192, 6, 32), (128, 4, 32)]
)
def test_slots_of_the_released_code_are_those_of_table_5(budget: int, top_k: int, slots: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(tmp_path / "oc.safetensors", OCPruner(Dims(8, 8, 4, 8)).state_dict(), Header())
    hidden = torch.randn(1, 200, 8)
    index, evidence = torch.arange(200)[None], {Evidence("hidden", 8): hidden}
    view = TokenView(Cut(0, budget), 0, hidden, index, Grid(1, 10, 20), SHAPE, ("a",), evidence)
    found = {}
    for label, options in (("released", {"compat_extra_slot": True}), ("same", {"slots": slots})):
        pruner = OCVTP(str(tmp_path / "oc.safetensors"), pad="none", top_k=top_k, **options)  # type: ignore[arg-type]  # parametrised
        keep, segments = pruner.apply(view), pruner.segments(view)
        assert keep.valid is not None
        found[label] = segments.tolist(), keep.index[keep.valid].tolist()
        assert max(segments.flatten().tolist()) < slots
    assert found["released"] == found["same"]
