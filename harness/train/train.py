"""`vtpbench train oc-vtp`: images through a model's vision tower, training on what comes out, and the pruner's weights."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from accelerate import PartialState  # type: ignore[import-untyped]  # it has no annotations
from pydantic import ConfigDict
from rich.console import Console

from vtpbench.harness.host.device import open_device
from vtpbench.harness.host.files import prepare_file, read_text, write_atomic, writing
from vtpbench.harness.host.images import image_name
from vtpbench.harness.host.phases import Phases
from vtpbench.harness.models.load import Described, describe_model, open_model
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import collecting
from vtpbench.harness.records.environment import recorded_versions
from vtpbench.harness.suite.strict_yaml import Document, Strict
from vtpbench.harness.train.images import ImageFiles, read_exclusion
from vtpbench.pruners.base import Evidence, Grid
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.oc_vtp.checkpoint import Header, load, save
from vtpbench.pruners.oc_vtp.config import TrainConfig
from vtpbench.pruners.oc_vtp.features import FeatureMeta, ImageFeatures, extract
from vtpbench.pruners.oc_vtp.progress import LogRow, read_log
from vtpbench.pruners.oc_vtp.pruner import FILE, resolve_layer
from vtpbench.pruners.oc_vtp.task import TrainingTask
from vtpbench.pruners.oc_vtp.tower import tower_hash
from vtpbench.pruners.oc_vtp.train import ProcessRank, TrainingResult, train

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from vtpbench.harness.models.family import Family

IMAGES_AT_ONCE = 32
LONGEST_WAIT = timedelta(days=7)
"""How long processes wait for the first one, which extracts the features."""


@dataclass(frozen=True)
class TrainOptions:
    """What the command line asks for."""

    model: str
    """Hub id or folder."""
    images: Path
    config: Path | None = None
    """YAML with keys of `TrainConfig`."""
    out: Path | None = None
    """None = in the model's folder, or in the working folder where that cannot be written."""
    work: Path | None = None
    """For features and interrupted runs; None = beside `out`."""
    exclude: Path | None = None
    """Images that must not be trained on; see `read_exclusion`."""
    device: str | None = None


@dataclass(frozen=True)
class Trained:
    """What a training left behind."""

    checkpoint: Path
    log: Path
    plot: Path
    work: Path
    header: Header


class TowerFeatures:
    """Features of pictures at one layer of a model's vision tower; the model is loaded when the first is wanted."""

    def __init__(
        self, described: Described, config: TrainConfig, pictures: ImageFiles, device: torch.device, display: Phases
    ) -> None:
        self._described, self._pictures, self._device, self._display = described, pictures, device, display
        shape = described.shape
        self.meta = FeatureMeta(
            model=described.info.id,
            tower=tower_hash(described.folder),
            layer=resolve_layer(config.layer, shape),
            width=shape.vision_width,
            geometry="native" if described.info.vision_tokens is None else config.geometry,
        )
        self._names: list[str] = []

    def keys(self) -> Sequence[str]:
        """Content hash of each picture, in their order; a picture that cannot be decoded is an error that names it."""
        if not self._names:
            total = len(self._pictures)
            for number, picture in enumerate(self._pictures, 1):
                self._names.append(image_name(picture.decode()))
                self._display.advance("reading images", number, total)
        return self._names

    def features(self, keys: Sequence[str]) -> Iterator[ImageFeatures]:
        """Compute the named pictures, in their order."""
        wanted = set(keys)
        if not wanted:
            return
        transformers.logging.disable_progress_bar()  # it would tear up ours
        family = open_model(self._described, self._device)
        pictures = self._named(wanted)
        while batch := list(islice(pictures, IMAGES_AT_ONCE)):
            encoded = tower_features(family, self.meta.layer, [image for _, image in batch])
            yield from (ImageFeatures(key, *found) for (key, _), found in zip(batch, encoded, strict=True))

    def _named(self, wanted: set[str]) -> Iterator[tuple[str, Image]]:
        """Decode wanted pictures, each once however often it occurs."""
        for key, picture in zip(self.keys(), self._pictures, strict=True):
            if key in wanted:
                wanted.discard(key)
                image = picture.decode()
                yield key, _squash(image) if self.meta.geometry == "squash" else image


def tower_features(family: Family, layer: int, images: Sequence[Image]) -> list[tuple[Grid, Tensor]]:
    """Output of a vision layer for each image: how its tokens lie, and the tokens `(n, width)`, all tiles together."""
    need = Evidence("hidden", layer)
    found: dict[int, tuple[Grid, Tensor]] = {}
    for group in Pipeline(family, collecting(need)).encode(images):
        if not group.grid.tiled:
            what = "a pruner is trained on tokens of tiles, or of whole images"
            raise UserError(
                f"{what}; {family.shape.family} makes a picture of another size of them, and nothing can be trained on it"
            )
        grid = Grid(group.grid.tiles, group.grid.height, group.grid.width)
        found.update((member, (grid, tokens)) for member, tokens in zip(group.members, group.evidence[need], strict=True))
    return [found[member] for member in range(len(images))]


def train_oc_vtp(order: TrainOptions, display: Phases) -> Trained | None:
    """Train an OC-VTP pruner for a model; goes on where an interrupted run with the same order stopped.

    Several processes (`accelerate launch`, `torchrun`) share the training, each on its own device; the first one shows
    the progress and writes the result, the others return None.

    Raises
    ------
    UserError : a model, image, configuration or folder that cannot be used; said before anything long begins

    """
    config = read_config(order.config)
    cpu = order.device == "cpu" or (order.device is None and not torch.cuda.is_available())
    state = PartialState(cpu=cpu, timeout=LONGEST_WAIT)  # before any device is opened: it knows whose this process has
    device = state.device if state.num_processes > 1 else open_device(order.device)
    place = ProcessRank(device, state.process_index, state.num_processes)
    if place.rank > 0:
        display = Phases(Console(quiet=True))
    described = describe_model(order.model, order.model)
    out = _destination(order.out, described.folder)
    work = order.work or out.with_name(f"{out.name}.work")
    pictures = ImageFiles.find(order.images)
    excluded = read_exclusion(order.exclude) if order.exclude else set()
    source = TowerFeatures(described, config, pictures, place.device, display)
    features = work / f"features-{source.meta.layer}-{source.meta.geometry}"
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
        with state.main_process_first():  # the others find everything written
            store = extract(source, features, exclude=excluded, on_image=partial(display.advance, "extracting features"))
        run = work / f"run-{TrainingTask(config, store).identity}"  # other options or images: another folder, the same features
        result = train(config, store, run, place, _shower(display, config))
    state.destroy_process_group()
    return publish(result, out, work) if place.rank == 0 else None


def read_config(file: Path | None) -> TrainConfig:
    """Read a training's YAML; None = the defaults. An error names file, line and key."""
    return TrainConfig() if file is None else Document(read_text(file), str(file)).validate(_File, {})


class _File(TrainConfig, Strict):
    """The options as a file gives them: unknown keys are answered with the nearest valid one."""

    model_config = ConfigDict(strict=False)  # YAML has lists, and the options are tuples


def publish(result: TrainingResult, out: Path, work: Path) -> Trained:
    """Write the pruner's part of the best weights, the log and the plot, each in one move."""
    best, rows = load(result.best), read_log(result.log)
    untrained = {f"untrained_{name}": value for name, value in (("loss", rows[0].val_loss), ("mse", rows[0].val_mse)) if value}
    versions = {**best.header.versions, **recorded_versions()}
    header = best.header.model_copy(update={"validation": {**best.header.validation, **untrained}, "versions": versions})
    found = Trained(out, out.with_suffix(".csv"), out.with_suffix(".png"), work, header)
    with writing(out):
        save(out, best.state, header)
    write_atomic(found.log, result.log.read_bytes())
    write_atomic(found.plot, plot(rows))
    return found


def plot(rows: Sequence[LogRow]) -> bytes:
    """Draw training and validation loss over the steps, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    curves: tuple[tuple[str, Callable[[LogRow], float | None], str, str], ...] = (
        ("training loss", lambda row: row.loss, "-", "0.75"),
        ("validation loss", lambda row: row.val_loss, ".-", "tab:blue"),
        ("validation error, plain", lambda row: row.val_mse, "--", "tab:orange"),
    )
    for label, value, style, colour in curves:
        points = [(row.step, found) for row in rows if (found := value(row)) is not None]
        axes.plot([step for step, _ in points], [found for _, found in points], style, color=colour, linewidth=1, label=label)
    axes.set(xlabel="step", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def _destination(out: Path | None, model: Path) -> Path:
    """Where the weights go; raises `UserError` now rather than after the training."""
    if out is None:
        out = model / FILE if os.access(model, os.W_OK) else Path(FILE)
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: the name must end in .safetensors")
    prepare_file(out)
    return out


def _shower(display: Phases, config: TrainConfig) -> Callable[[LogRow], None]:
    def show(row: LogRow) -> None:
        if row.val_loss is not None:
            display.note(f"step {row.step}: validation loss {row.val_loss:.4g}, plain error {row.val_mse:.4g}")
        display.advance("training", row.step, config.steps, "" if row.loss is None else f"loss {row.loss:.4g}")

    return show


def _squash(image: Image) -> Image:
    """Stretch the shorter side: the processor then reduces a square, which neither pads nor crops."""
    from PIL.Image import Resampling

    side = max(image.size)
    return image if image.width == image.height else image.resize((side, side), Resampling.BICUBIC)
