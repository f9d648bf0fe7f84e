from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from pruner_options import QWEN
from torch import Tensor
from typer.testing import CliRunner

from vtpbench.harness.cli.show import show_command
from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import (
    tiny_internvl,
    tiny_llava,
    tiny_llava_next,
    tiny_llava_onevision,
    tiny_qwen2_5_vl,
    tiny_qwen2_vl,
)
from vtpbench.harness.pruning.merging import merged_into
from vtpbench.harness.records.record import BudgetInfo
from vtpbench.harness.show.show import PanelMaker, ShownPruner, ShowOptions, show
from vtpbench.harness.show.trace import PruningTrace, trace_pruning
from vtpbench.pruners.base import Cut, Grid, ModelShape, Pruner, Selection, TokenView
from vtpbench.pruners.cells import cells
from vtpbench.pruners.downsample import Downsample
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.fastv import FastV
from vtpbench.pruners.oc_vtp import OCVTP
from vtpbench.pruners.oc_vtp.checkpoint import Header, save
from vtpbench.pruners.oc_vtp.decoder import DecoderDims, Reconstructor
from vtpbench.pruners.oc_vtp.dims import Dims
from vtpbench.pruners.pool import Pool
from vtpbench.pruners.random import Random, private_generator
from vtpbench.pruners.registry import build
from vtpbench.pruners.sparsevlm import SparseVLM
from vtpbench.pruners.sparsevlm.counts import recycled
from vtpbench.pruners.text_only import TextOnly
from vtpbench.pruners.vanilla import Vanilla
from vtpbench.pruners.visionzip import VisionZip

SHAPE = ModelShape("test", 32, 4, 32, 24, 32, 22, True, tuple(range(24)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def seen(pruner: Pruner, family: Family | None = None, budget: int = 8, image: Image.Image | None = None) -> PruningTrace:
    return trace_pruning(family or tiny_llava(), pruner, image or picture(), "key", "What is it?", lambda n: budget, 2)


def cropping() -> Family:
    family = tiny_llava()
    family.preprocessing = "crop"
    return family


def brightness(family: Any, image: Image.Image) -> tuple[Grid, Tensor]:
    """How bright each token's own pixels are, as they enter the tower."""
    if family.shape.family in QWEN:
        pixels = family.image_processor([image], return_tensors="pt")["pixel_values"]
        return family._grid(image), pixels.reshape(len(pixels) // 4, -1).mean(1)
    (prepared,) = family.group([image])
    side = prepared.pixels.shape[-1] // prepared.grid.width
    means = torch.nn.functional.avg_pool2d(prepared.pixels.mean(1, keepdim=True), side)
    means = (means.roll(1, 0) if family.shape.family == "internvl" else means).flatten()  # whose base tile is last
    return prepared.grid, means if prepared.grid.tiled else prepared.grid.lay_out(means[None])[0]


FAMILIES = {
    "pad": tiny_llava,
    "crop": cropping,
    "fixed672": tiny_llava_next,
    "native": lambda: tiny_llava_next(preprocessing="native"),
    "packed": lambda: tiny_llava_onevision(most=9),
    "pooled": lambda: tiny_llava_onevision(most=1),
    "qwen": tiny_qwen2_5_vl,
    "qwen2": tiny_qwen2_vl,
    "internvl": lambda: tiny_internvl(side=4, tiles=(2, 6)),
}


@pytest.mark.parametrize("size", [(160, 80), (96, 192)])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_painted_into_a_tokens_box_reaches_that_token(name: str, size: tuple[int, int]) -> None:
    family: Any = FAMILIES[name]()
    black = Image.new("RGB", size)
    grid, _ = brightness(family, black)
    _, boxes = family.boxes(black, grid)
    assert boxes.shape == (grid.n, 4)
    if grid.tiles > 1:  # the image stands twice on the canvas
        canvas, _ = family.boxes(black, grid)
        scale = np.array([canvas.width / size[0], canvas.height / size[1]] * 2)
        second = 1 - 1 / scale
        boxes = np.where(np.arange(grid.n)[:, None] < grid.height * grid.width, boxes, boxes - second) * scale
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    least = {True: 0.9 * areas[:16].max(), False: 0.9 * areas[16:].max(initial=0)}  # of the base tile, of the others
    whole = [token for token in range(grid.n) if areas[token] > least[token < 16]]
    assert whole
    for token in whole:
        painted = np.zeros((size[1], size[0], 3), np.uint8)
        left, top, right, bottom = np.rint(boxes[token] * (*size, *size)).astype(int)
        painted[top:bottom, left:right] = 255
        _, found = brightness(family, Image.fromarray(painted))
        _, empty = brightness(family, black)
        tile = slice(0, 16) if token < 16 and grid.tiles > 1 else slice(16, None) if grid.tiles > 1 else slice(None)
        gained = (found - empty)[tile]
        assert gained.argmax() + (tile.start or 0) == token


def test_padding_has_no_area() -> None:
    _, boxes = tiny_llava().boxes(picture(64, 32), Grid(1, 4, 4))
    heights = (boxes[:, 3] - boxes[:, 1]).reshape(4, 4)
    assert heights.tolist() == [[0] * 4, [0.5] * 4, [0.5] * 4, [0] * 4]


@pytest.mark.parametrize(("name", "budget", "tile"), [("pad", 6, 16), ("fixed672", 30, 16)])
def test_what_was_merged_inside_the_tower_is_shown_as_groups(name: str, budget: int, tile: int) -> None:
    trace_pruning = seen(build("tome", {}), FAMILIES[name](), budget)
    (stop,) = trace_pruning.stops
    assert trace_pruning.inside
    assert not seen(build("tome", {"stage": "post"}), FAMILIES[name](), budget).inside
    assert stop.segments is not None
    assert stop.segments.min() >= 0
    groups = [np.flatnonzero(stop.segments == row) for row in np.unique(stop.segments)]
    assert sorted(int(group[0]) for group in groups) == sorted(stop.kept.tolist())  # a row stands at the first of its tokens
    assert all(len(set(group // tile)) == 1 for group in groups)
    assert max(map(len, groups)) > 2  # tokens that were merged in one layer were merged again in another
    assert not stop.members


def test_a_cut_before_the_language_model() -> None:
    found = seen(Random())
    (stop,) = found.stops
    expected = torch.randperm(16, generator=private_generator(0, "key"))[:8].sort().values
    assert (found.original, stop.at) == (16, 0)
    assert stop.kept.tolist() == expected.tolist()
    assert len(stop.places) == 0
    assert stop.segments is None


def test_every_cut_inside_it_is_seen() -> None:
    found = seen(SparseVLM(), budget=10)
    assert len(found.stops) == 3
    earlier = set(range(16))
    for stop in found.stops:
        assert stop.at > 0
        assert set(stop.kept.tolist()) <= earlier
        earlier = set(stop.kept.tolist())
        assert set(stop.places.tolist()) <= earlier
        assert set(stop.members.values()) == set(stop.places.tolist())


def test_merged_tokens_are_those_that_were_recycled() -> None:
    family = tiny_llava(side=8)
    found = seen(SparseVLM(), family, budget=40)
    n = 64
    for stop, cut in zip(found.stops, SparseVLM().cuts(40, n, family.shape), strict=True):
        in_clusters_of_one = cut.merged - len(stop.places)
        assert len(stop.members) == recycled(n - (cut.keep - cut.merged)) - in_clusters_of_one
        n = cut.keep


def test_visionzip_merges_all_that_is_not_dominant() -> None:
    (stop,) = seen(VisionZip(contextual=2)).stops
    assert stop.kept[0] == -1  # CLS
    dominant = set(stop.kept[1:6].tolist())
    contextual = set(stop.kept[6:].tolist())
    alone = contextual - set(stop.places.tolist())  # a target that no token joined
    assert len(contextual) == 2 > len(alone)
    assert set(stop.members) == set(range(16)) - dominant - alone


def test_a_pools_cells_are_found_by_the_derivative() -> None:
    (stop,) = seen(Pool()).stops
    found = cells(8, 4, 4, torch.device("cpu"))
    ids, real = found.members(16)
    for centre, members, own in zip(found.centre.tolist(), ids, real, strict=True):
        assert [token for token, place in stop.members.items() if place == centre] == members[own].tolist()


@dataclass(frozen=True)
class Elsewhere(Pruner):
    """Merges outside torch, where no derivative follows."""

    def reduce(self, view: TokenView) -> Selection:
        rows = torch.from_numpy(view.features.numpy()[:, :8] * 2)
        return Selection(view.index[:, :8], rows)


def test_a_pruner_that_leaves_torch_shows_places_alone() -> None:
    (stop,) = seen(Elsewhere()).stops
    assert stop.places.tolist() == list(range(8))
    assert stop.members == {}


def test_asking_for_members_leaves_the_view_alone() -> None:
    features = torch.randn(1, 16, 4)
    view = TokenView(Cut(0, 4), 0, features, torch.arange(16)[None], Grid(1, 4, 4), SHAPE, ("a",))
    with torch.inference_mode():
        assert merged_into(Pool(), view, torch.ones(4, dtype=torch.bool)).min() == 0
    assert not features.requires_grad
    assert not features.is_inference()


def test_a_smaller_image_has_larger_tokens() -> None:
    found = seen(Downsample())
    assert found.shrunk
    assert (found.original, found.grid.n) == (16, 8)
    _, boxes = tiny_llava().boxes(picture(64, 64), found.grid)
    assert len(boxes) == 8


def test_nothing_left_is_shown_too() -> None:
    (stop,) = seen(TextOnly()).stops
    assert len(stop.kept) == 0


def test_newlines_have_no_place() -> None:
    found = seen(Random(), tiny_llava_next(preprocessing="native"), budget=20)
    (stop,) = found.stops
    assert (stop.kept == -1).any()
    assert stop.kept.max() < found.grid.n


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    torch.manual_seed(0)
    save(tmp_path / "oc.safetensors", Reconstructor(Dims(32, 16, 8, 16), DecoderDims(16, 1, 2, 16)).state_dict(), Header(layer=1))
    return str(tmp_path / "oc.safetensors")


def test_slots_get_a_panel_of_their_own(checkpoint: str) -> None:
    gallery = PanelMaker(tiny_llava(), [ShownPruner("oc-vtp", OCVTP(checkpoint))], BudgetInfo(tokens=6), None)
    _, kept, slots = gallery.panels(picture())
    assert kept.kept is not None
    assert len(kept.kept) == 6
    assert not kept.coloured
    assert slots.coloured
    assert slots.groups is not None
    assert slots.groups.shape == (16,)
    assert set(slots.groups.tolist()) <= set(range(6))


def test_panels_say_what_was_done() -> None:
    pruners = (FastV(layer=1), FastV(layer=5), Pool(), Downsample(), Vanilla(), OCVTP())
    pruner_rows = [ShownPruner(type(pruner).__name__, pruner) for pruner in pruners]
    shown = list(PanelMaker(tiny_llava(), pruner_rows, BudgetInfo(ratio=0.5), "What?", 2).panels(picture(64, 32)))
    whole, fast, late, pool, small, all_, untrained = shown
    assert whole.detail == ("64 x 32 pixels", "16 vision tokens")
    assert whole.note.startswith("All tokens: ")
    assert fast.detail[0] == "layer 1: 6 of 16"
    assert late.detail == ("infeasible",)
    assert "at least" in late.note
    assert late.boxed is None
    assert pool.detail == ("before the LLM: 8 of 16", "8 merged")
    assert pool.groups is not None
    assert small.detail[0] == "image made smaller: 8 of 16"
    assert all_.detail == ("no cut: 16 of 16", "8 on padding")
    assert untrained.detail == ("unsupported",)
    assert "vtpbench train" in untrained.note


@dataclass(frozen=True)
class Filling(Pruner):
    """Keeps two tokens, and fills up with what is no token."""

    @property
    def adaptive(self) -> bool:
        return True

    def reduce(self, view: TokenView) -> Selection:
        index = torch.tensor([[1, 3, -1]])
        return Selection(index, valid=index >= 0)


def test_filling_may_name_anything() -> None:
    (stop,) = seen(Filling(), budget=3).stops
    assert stop.kept.tolist() == [1, 3]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    picture().save(tmp_path / "a.png")
    return tmp_path / "a.png"


def order(image: Path, model: Path, /, **changes: Any) -> ShowOptions:
    given = {"images": [image], "model": str(model), "pruners": ["random"], "budget": "8", "device": "cpu"}
    return ShowOptions(**{"out": image.with_name("show.png"), **given, **changes})


def test_the_command_writes_the_same_picture_every_time(image: Path, tiny_checkpoint: Path) -> None:
    app = typer.Typer()
    app.command()(show_command)
    called = [str(image), str(image), "--model", str(tiny_checkpoint), "--pruner", "random", "--pruner", "fastv: {layer: 1}"]
    files = []
    for name, seed in (("1.png", 0), ("2.png", 0), ("3.png", 1)):
        out = image.with_name(name)
        more = ["--budget", "50%", "--out", str(out), "--seed", str(seed), "--device", "cpu"]
        result = CliRunner().invoke(app, [*called, *more], catch_exceptions=False)
        assert result.exit_code == 0
        assert result.stdout.strip() == str(out)
        files.append(out.read_bytes())
    assert Image.open(io.BytesIO(files[0])).format == "PNG"
    assert files[0] == files[1] != files[2]


def test_a_page_names_images_pruners_and_answers(image: Path, tiny_checkpoint: Path) -> None:
    out = image.with_suffix(".html")
    show(order(image, tiny_checkpoint, pruners=["hiprune", "{label: <b>, name: fastv, options: {layer: 5}}"], out=out))
    page = out.read_text()
    assert "<h2>a.png</h2>" in page
    assert "&lt;b&gt;" in page
    assert "infeasible" in page
    assert "No question was given" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [Path("nowhere.png")]}, "cannot read the image nowhere.png: No such file"),
        ({"pruners": ["fastvv"]}, r"--pruner fastvv: unknown pruner 'fastvv'; did you mean 'fastv'\?"),
        ({"pruners": ["fastv: {layr: 1}"]}, "no option 'layr'; did you mean 'layer'"),
        ({"pruners": ["fastv: {"]}, "this is not YAML"),
        ({"pruners": []}, "name at least one with --pruner"),
        ({"budget": "many"}, "--budget many: a budget is a count"),
        ({"budget": "17"}, "budget 17 is larger than the 16 vision tokens of model '"),
        ({"budget": "0"}, "--budget 0: a budget must be at least 1"),
        ({"out": Path("show.jpg")}, "must end in .png or .html"),
        ({"model": "/nowhere"}, "no checkpoint folder /nowhere"),
    ],
)
def test_mistakes_are_told_in_a_line(image: Path, tiny_checkpoint: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        show(order(image, tiny_checkpoint, **changes))


def test_files_that_cannot_be_used(image: Path, tiny_checkpoint: Path) -> None:
    text = image.with_name("text.png")
    text.write_text("no picture")
    with pytest.raises(UserError, match="cannot read the image"):
        show(order(text, tiny_checkpoint))
    folder = image.with_name("folder.png")
    folder.mkdir()
    with pytest.raises(UserError, match=r"cannot write .*folder\.png"):
        show(order(image, tiny_checkpoint, out=folder))
    with pytest.raises(UserError, match="cannot write"):
        show(order(image, tiny_checkpoint, out=text / "show.png"))
