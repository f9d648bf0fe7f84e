from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pruner_options import ONEVISION
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from vtpbench.harness.cli.train import train_app
from vtpbench.harness.host.images import image_name
from vtpbench.harness.host.phases import Phases
from vtpbench.harness.models.load import describe_model, open_model
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.run.job import Job, RunOptions, make_job
from vtpbench.harness.train.images import ImageFiles, read_exclusion
from vtpbench.harness.train.train import TrainOptions, read_config, tower_features, train_oc_vtp
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.oc_vtp import OCVTP
from vtpbench.pruners.oc_vtp.checkpoint import load
from vtpbench.pruners.oc_vtp.features import FeatureStore
from vtpbench.pruners.oc_vtp.progress import read_log

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = """\
enc_hidden: 16
slot_dim: 8
agg_ffn: 16
decoder_layers: 1
decoder_heads: 2
decoder_ffn: 16
slots: [2, 4]
prefix: null
batch: 2
steps: 4
warmup: 1
validation_images: 1
validate_every: 2
log_every: 1
"""


class Watched(Phases):
    """Remembers how far each phase was, and may be interrupted at a step of the training."""

    def __init__(self, stop: int | None = None) -> None:
        super().__init__(Console(quiet=True))
        self.seen: list[tuple[str, int]] = []
        self.stop = stop

    def advance(self, phase: str, done: int, total: int, facts: str = "") -> None:
        self.seen.append((phase, done))
        if (phase, done) == ("training", self.stop):
            raise KeyboardInterrupt


@pytest.fixture
def model(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))


def picture(seed: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images" / "deeper").mkdir(parents=True)
    for n, name in enumerate(("a.png", "deeper/b.PNG", "c.webp")):
        picture(n, (16, 12)).save(tmp_path / "images" / name, **({"lossless": True} if "webp" in name else {}))
    (tmp_path / "images" / "notes.txt").write_text("not a picture")
    return tmp_path / "images"


@pytest.fixture
def order(model: Path, images: Path, tmp_path: Path) -> Callable[..., TrainOptions]:
    (tmp_path / "config.yaml").write_text(CONFIG)

    def make(**changes: Any) -> TrainOptions:
        return TrainOptions(
            **{"model": str(model), "images": images, "config": tmp_path / "config.yaml", "device": "cpu"} | changes
        )

    return make


def as_parquet(file: Path, pictures: list[Image.Image]) -> Path:
    rows = []
    for image in pictures:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        rows.append({"bytes": stream.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows, kind), "n": list(range(len(rows)))}), file)
    return file


def job(model: Path, tmp_path: Path) -> Job:
    models = f"models=[{{label: tiny, path: {model}, dtype: float32}}]"
    matrix = "matrix={pruners: [oc-vtp], budgets: [6], benchmarks: [demo-exist]}"
    return make_job("demo", RunOptions(tmp_path / "results", (), [models, matrix], 4, 4), print)


def test_the_command_writes_weights_that_the_pruner_finds(model: Path, images: Path, order: Callable[..., TrainOptions]) -> None:
    before = describe_model("tiny", str(model))
    with pytest.raises(Unsupported, match="vtpbench train oc-vtp"):
        OCVTP().needs(before.shape)
    config = order().config
    called = ["oc-vtp", "--model", str(model), "--images", str(images), "--config", str(config), "--device", "cpu"]
    result = CliRunner().invoke(train_app, called, catch_exceptions=False)
    assert result.exit_code == 0
    assert "untrained" in result.stdout
    file = model / "oc-vtp.safetensors"
    header = load(file).header
    assert (header.layer, header.geometry, header.tokens, header.images, header.steps) == (1, "squash", 16, 2, 4)
    assert set(header.validation) == {"loss", "mse", "untrained_loss", "untrained_mse"}
    assert {"vtpbench", "torch", "transformers"} <= set(header.versions)
    with safe_open(file, "pt") as opened:
        assert not [name for name in opened.keys() if name.startswith("decode.")]  # noqa: SIM118 - not a mapping
    assert [row.step for row in read_log(model / "oc-vtp.csv")] == [0, 1, 2, 3, 4]
    assert Image.open(model / "oc-vtp.png").size[0] > 500
    family = open_model(describe_model("tiny", str(model)), torch.device("cpu"))
    assert describe_model("tiny", str(model)).info == before.info  # weights beside the model are not the model's
    pruner = OCVTP()
    pipeline = Pipeline(family, pruner, lambda n: 6)
    kept = pipeline.select(pipeline.encode([picture(0), picture(1)]), ["a", "b"])
    assert [len(kept[n].index) for n in range(2)] == [6, 6]


def test_an_interrupted_training_goes_on_where_it_was(order: Callable[..., TrainOptions], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_oc_vtp(order(out=tmp_path / "cut.safetensors"), Watched(stop=3))
    resumed, again, whole = Watched(), Watched(), Watched()
    cut = train_oc_vtp(order(out=tmp_path / "cut.safetensors"), resumed)
    once = train_oc_vtp(order(out=tmp_path / "whole.safetensors"), whole)
    assert cut is not None
    assert once is not None
    assert [done for phase, done in resumed.seen if phase == "extracting features"] == [3]
    assert [done for phase, done in resumed.seen if phase == "training"] == [3, 4]
    assert cut.checkpoint.read_bytes() == once.checkpoint.read_bytes()
    assert cut.log.read_text() == once.log.read_text()
    train_oc_vtp(order(out=tmp_path / "cut.safetensors"), again)
    assert "training" not in dict(again.seen)


def test_runs_with_other_options_share_the_features(order: Callable[..., TrainOptions], tmp_path: Path) -> None:
    train_oc_vtp(order(work=tmp_path / "work"), Watched())
    (tmp_path / "config.yaml").write_text(CONFIG + "loss: mse\n")
    second = Watched()
    found = train_oc_vtp(order(work=tmp_path / "work", out=tmp_path / "mse.safetensors"), second)
    assert [done for phase, done in second.seen if phase == "extracting features"] == [3]
    assert found is not None
    assert found.header.config["loss"] == "mse"
    assert len(list((tmp_path / "work").glob("features-*"))) == 1


def test_another_tower_is_refused(order: Callable[..., TrainOptions], model: Path, tmp_path: Path) -> None:
    train_oc_vtp(order(), Watched())
    trained = job(model, tmp_path)
    assert not any(forecast.obstacle for forecast in trained.forecasts.values())
    weights = load_file(model / "model.safetensors")
    decoder = next(name for name in weights if "language_model" in name)
    tower = next(name for name in weights if "vision_tower" in name)
    save_file({**weights, decoder: weights[decoder] + 1}, model / "model.safetensors", {"format": "pt"})
    OCVTP().needs(describe_model("tiny", str(model)).shape)  # a finetuned decoder changes nothing
    save_file({**weights, tower: weights[tower] + 1}, model / "model.safetensors", {"format": "pt"})
    found = job(model, tmp_path)
    (reason,) = (forecast.obstacle for forecast in found.forecasts.values() if forecast.obstacle)
    assert reason.startswith("unsupported: ")
    assert "vision tower" in reason


def test_the_weights_are_part_of_a_cells_identity(order: Callable[..., TrainOptions], model: Path, tmp_path: Path) -> None:
    def ids() -> dict[str, str]:
        return {cell.pruner.name: cell.id for cell in job(model, tmp_path).cells}

    before = ids()
    train_oc_vtp(order(), Watched())
    trained = ids()
    moved = (model / "oc-vtp.safetensors").read_bytes()
    (tmp_path / "config.yaml").write_text(CONFIG + "seed: 1\n")
    train_oc_vtp(order(), Watched())
    other = ids()
    (model / "oc-vtp.safetensors").write_bytes(moved)
    assert len({before["oc-vtp"], trained["oc-vtp"], other["oc-vtp"]}) == 3
    assert before["vanilla"] == trained["vanilla"] == other["vanilla"]
    assert ids() == trained


def test_a_table_holds_the_same_pictures_as_a_folder(images: Path, tmp_path: Path) -> None:
    shown = [picture.decode() for picture in ImageFiles.find(images)]
    table = ImageFiles.find(as_parquet(tmp_path / "t.parquet", shown))
    assert [image_name(p.decode()) for p in table] == [image_name(image) for image in shown]
    assert len(table) == len(ImageFiles.find(images)) == 3


def test_excluded_pictures_and_repeated_ones(order: Callable[..., TrainOptions], images: Path, tmp_path: Path) -> None:
    names = [image_name(picture.decode()) for picture in ImageFiles.find(images)]
    extra, repeated = picture(7), Image.open(images / "a.png")
    everything = as_parquet(tmp_path / "all.parquet", [*(p.decode() for p in ImageFiles.find(images)), extra, repeated])
    as_parquet(tmp_path / "evaluation.parquet", [extra])
    (tmp_path / "hashes.txt").write_text(image_name(extra) + "\n\n")
    for exclude in ("evaluation.parquet", "hashes.txt"):
        work = tmp_path / exclude
        train_oc_vtp(order(images=everything, exclude=work, work=tmp_path / f"work-{exclude}"), Watched())
        (features,) = (tmp_path / f"work-{exclude}").glob("features-*")
        assert FeatureStore(features).keys == tuple(sorted(names))
    assert read_exclusion(tmp_path / "hashes.txt") == {image_name(extra)}


@pytest.mark.parametrize(("geometry", "same"), [("squash", True), ("pad", False)])
def test_geometry(
    geometry: str, same: bool, order: Callable[..., TrainOptions], images: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(f"{CONFIG}geometry: {geometry}\nlayer: -1\n")
    train_oc_vtp(order(work=tmp_path / "work"), Watched())
    store = FeatureStore(tmp_path / "work" / f"features-3-{geometry}")
    first = ImageFiles.find(images / "a.png")
    (image,) = [p.decode() for p in first]
    family = open_model(describe_model("tiny", str(model)), torch.device("cpu"))
    stretched = image.resize((16, 16), Image.Resampling.BICUBIC)
    ((_, tokens),) = tower_features(family, 3, [stretched])
    stored = store.batch([store.keys.index(image_name(image))]).features[0]
    assert torch.allclose(stored, tokens, atol=2e-2) == same


@pytest.mark.parametrize("name", TINY)
def test_features_of_every_family_in_the_order_of_the_images(name: str) -> None:
    family = TINY[name]()
    shown = [picture(0, (48, 48)), picture(1, (48, 24)), picture(2, (48, 48))]
    if name == ONEVISION:
        with pytest.raises(UserError, match="makes a picture of another size"):
            tower_features(family, 1, shown)
        return
    found = tower_features(family, 1, shown)
    for image, (grid, tokens) in zip(shown, found, strict=True):
        assert type(grid).__name__ == "Grid"
        assert tokens.shape == (grid.n, family.shape.vision_width)
        torch.testing.assert_close(tower_features(family, 1, [image])[0][1], tokens, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": Path("nowhere")}, "no images at nowhere: there is no such file or folder"),
        ({"out": Path("weights.pth")}, "must end in .safetensors"),
        ({"model": "./nowhere"}, "no checkpoint folder ./nowhere"),
        ({"device": "abacus"}, "no device 'abacus' here"),
        ({"exclude": Path("nowhere.txt")}, "no images at nowhere.txt"),
    ],
)
def test_mistakes_in_the_order(changes: dict[str, Any], message: str, order: Callable[..., TrainOptions]) -> None:
    with pytest.raises(UserError, match=message):
        train_oc_vtp(order(**changes), Watched())


def test_a_file_that_cannot_be_written_is_told_before_the_training(order: Callable[..., TrainOptions], tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*folder\.safetensors"):
        train_oc_vtp(order(out=tmp_path / "folder.safetensors"), Watched())
    with pytest.raises(UserError, match="cannot write"):
        train_oc_vtp(order(out=tmp_path / "config.yaml" / "weights.safetensors"), Watched())


def test_mistakes_in_the_images(order: Callable[..., TrainOptions], images: Path, tmp_path: Path) -> None:
    (images / "deeper" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(UserError, match=r"cannot read the image .*deeper/broken\.jpg"):
        train_oc_vtp(order(), Watched())
    pq.write_table(pa.table({"image": [b"bare bytes"]}), tmp_path / "bare.parquet")
    with pytest.raises(UserError, match=r"bare\.parquet has no column `image` with embedded pictures"):
        train_oc_vtp(order(images=tmp_path / "bare.parquet"), Watched())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"expected files that end in \.png"):
        train_oc_vtp(order(images=tmp_path / "empty"), Watched())
    (tmp_path / "hashes.txt").write_text("0123456789abcdef\nabc\n")
    with pytest.raises(UserError, match=r"hashes\.txt:2: expected the content hash"):
        train_oc_vtp(order(exclude=tmp_path / "hashes.txt"), Watched())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("stepps: 3", r"c\.yaml:2: unknown key 'stepps'; did you mean 'steps'"),
        ("loss: huber", r"c\.yaml:2: loss: input should be 'aw-code', 'aw-paper' or 'mse', not 'huber'"),
        ("slots: [4, 0]", r"c\.yaml:2: slots.1: input should be greater than 0, not 0"),
    ],
)
def test_mistakes_in_the_configuration(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"batch: 2\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_config(tmp_path / "c.yaml")


def test_the_demo_configuration_is_valid(request: pytest.FixtureRequest) -> None:
    config = read_config(request.config.rootpath / "suites" / "demo" / "oc_vtp.yaml")
    assert {16, 32, 48} <= set(config.slot_counts(144))
