"""`vtpbench show`: images with the tokens that pruners keep of them, and the answers that the model then gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from PIL.Image import Image

from vtpbench.harness.host.device import open_device
from vtpbench.harness.host.files import prepare_file, write_atomic
from vtpbench.harness.host.images import image_name, read_image
from vtpbench.harness.models.family import Family
from vtpbench.harness.models.load import describe_model, open_model
from vtpbench.harness.records.cell import tokens_for
from vtpbench.harness.records.record import BudgetInfo
from vtpbench.harness.show.trace import CutTrace, PruningTrace, trace_pruning
from vtpbench.harness.suite.options import NEUTRAL, model_path, read_option
from vtpbench.harness.suite.specs import Budget, PrunerSpec, build_seeded, refuse_large_budget
from vtpbench.pruners.base import Grid, Pruner
from vtpbench.pruners.errors import Impossible, UserError
from vtpbench.pruners.vanilla import Vanilla
from vtpbench.report.kept_tokens.panels import Panel, TokenBoxes
from vtpbench.report.kept_tokens.pictures import ImageStrip, PictureSheet, html, png

LONGEST = 128
"""Tokens of an answer."""
LARGEST = 768
"""Pixels of the longer side of an image as it is drawn."""
WRITERS = {".png": png, ".html": html}


@dataclass(frozen=True)
class ShowOptions:
    """What the command line asks for."""

    images: Sequence[Path]
    model: str
    """Hub id, folder, or `demo`."""
    pruners: Sequence[str]
    """As in a suite: a name, or YAML `name: {option: value}`."""
    budget: str
    """Count, or percentage."""
    question: str | None = None
    out: Path = Path("show.png")
    seed: int = 0
    device: str | None = None
    text_tower: str | None = None
    """CLIP model of the vision tower, as in a suite."""


@dataclass(frozen=True)
class ShownPruner:
    """A pruner with the name that it is shown under."""

    label: str
    pruner: Pruner


def show(order: ShowOptions) -> Path:
    """Run every pruner on every image, and draw what is kept; returns the file.

    Raises
    ------
    UserError : an image, model, pruner, budget or file that cannot be used; said before the model is loaded. A pruner
        that cannot reach the budget or act on the model is no error: its panel says why

    """
    write = _writer(order.out)
    budget: BudgetInfo = read_option("--budget", order.budget, Budget)
    pruner_rows = [_shown_pruner(text, order.seed) for text in order.pruners]
    if not pruner_rows:
        raise UserError("no pruner to show; name at least one with --pruner, e.g. --pruner random")
    images = [(path.name, read_image(path)) for path in order.images]
    device = open_device(order.device)
    described = describe_model(order.model, model_path(order.model), text_tower=order.text_tower)
    refuse_large_budget(budget, described.info.vision_tokens, described.info.label)
    transformers.logging.disable_progress_bar()
    gallery = PanelMaker(open_model(described, device), pruner_rows, budget, order.question)
    strips = tuple(ImageStrip(name, tuple(gallery.panels(image))) for name, image in images)
    write_atomic(order.out, write(PictureSheet(_title(order, budget), _facts(order), strips)))
    return order.out


@dataclass(frozen=True)
class PanelMaker:
    """A loaded model and the pruners to compare on it."""

    family: Family
    pruner_rows: Sequence[ShownPruner]
    budget: BudgetInfo
    question: str | None
    longest: int = LONGEST
    """Tokens of an answer."""

    def panels(self, image: Image) -> Iterator[Panel]:
        """Show an image as it is, then with what each pruner keeps."""
        whole = self._look(Vanilla(), image)
        pixels = np.asarray(_reduced(image))
        facts = (f"{image.width} x {image.height} pixels", f"{whole.original} vision tokens")
        yield Panel("Input", facts, TokenBoxes(pixels, np.empty((0, 4))), note=self._note(whole, "All tokens: "))
        for pruner_row in self.pruner_rows:
            try:
                seen = self._look(pruner_row.pruner, image)
            except Impossible as e:
                yield Panel(pruner_row.label, (e.status,), note=str(e))
            else:
                yield from self._pruned(pruner_row.label, seen, image)

    def _look(self, pruner: Pruner, image: Image) -> PruningTrace:
        question, longest = (NEUTRAL, 1) if self.question is None else (self.question, self.longest)
        key = image_name(image)
        return trace_pruning(self.family, pruner, image, key, question, lambda n: tokens_for(self.budget, n), longest)

    def _pruned(self, label: str, seen: PruningTrace, image: Image) -> Iterator[Panel]:
        boxed = self._boxed(image, seen.grid)
        for number, stop in enumerate(seen.stops, 1):
            last = number == len(seen.stops)
            note = self._note(seen) if last else ""
            title = label if number == 1 else f"{label}, continued"
            yield _panel(title, seen, stop, boxed, note)
            if stop.segments is not None:
                slots = len(np.unique(stop.segments[stop.segments >= 0]))
                detail = (f"{slots} segments",)
                yield Panel(label, detail, boxed, kept=stop.kept[stop.kept >= 0], groups=stop.segments, coloured=True)

    def _note(self, seen: PruningTrace, before: str = "") -> str:
        return "" if self.question is None else before + (seen.answer.strip() or "(no answer)")

    def _boxed(self, image: Image, grid: Grid) -> TokenBoxes:
        canvas, boxes = self.family.boxes(image, grid)
        return TokenBoxes(np.asarray(_reduced(canvas)), boxes)


def _panel(title: str, seen: PruningTrace, stop: CutTrace, boxed: TokenBoxes, note: str) -> Panel:
    """Show a cut. Where nothing but averages stays, show what was averaged; else mark places and members."""
    before = "in the vision tower" if seen.inside else "before the LLM"
    where = f"layer {stop.at}" if stop.at else before if seen.cut else "image made smaller" if seen.shrunk else "no cut"
    placed = stop.kept[stop.kept >= 0]
    padding = int((np.ptp(boxed.boxes[placed].reshape(-1, 2, 2), axis=1) == 0).any(axis=1).sum())
    averaged = len(stop.places) == len(placed) > 0
    counts = {
        "merged": len(stop.places),
        "on padding": 0 if averaged else padding,  # what is averaged may reach into the picture
        "without a place": len(stop.kept) - len(placed),
    }
    extra = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    detail = (f"{where}: {len(stop.kept)} of {seen.original}", *([extra] if extra else []))
    if averaged:
        groups = np.full(len(boxed.boxes), -1)
        for token, row in stop.members.items():
            groups[token] = row
        return Panel(title, detail, boxed, kept=np.flatnonzero(groups >= 0), groups=groups, note=note)
    members = np.array(sorted(stop.members), dtype=np.int64)
    return Panel(title, detail, boxed, kept=placed, places=stop.places, members=members, note=note)


def _reduced(image: Image) -> Image:
    small = image.copy()
    small.thumbnail((LARGEST, LARGEST))
    return small


def _title(order: ShowOptions, budget: BudgetInfo) -> str:
    unit = "vision tokens" if budget.tokens is not None else "of the vision tokens"
    return f"{order.model}: {budget.label} {unit}, on average over the decoder's layers"


def _facts(order: ShowOptions) -> tuple[str, ...]:
    if order.question is not None:
        return (f"Question: {' '.join(order.question.split())}",)
    return (f"No question was given; pruners inside the language model saw '{NEUTRAL}'",)


def _shown_pruner(text: str, seed: int) -> ShownPruner:
    spec: PrunerSpec = read_option("--pruner", text, PrunerSpec)
    options = ", ".join(f"{name}={value}" for name, value in spec.options.items())
    label = f"{spec.label} ({options})" if options and spec.label == spec.name else spec.label
    return ShownPruner(label, build_seeded(spec.name, spec.placed, seed))


def _writer(out: Path) -> Any:
    """Find the format by the file's name; raises `UserError` now rather than after the work."""
    if out.suffix.lower() not in WRITERS:
        raise UserError(f"--out {out}: the name must end in {' or '.join(WRITERS)}")
    prepare_file(out)
    return WRITERS[out.suffix.lower()]
