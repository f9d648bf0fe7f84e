"""Watch one pruner at work on one image: what stays at every cut, what was merged, what the model answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from vtpbench.harness.models.family import Family
from vtpbench.harness.pruning.merging import merged_into, merged_rows
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.harness.pruning.schedule import RecordedSelection
from vtpbench.harness.pruning.validation import clamp_and_flag, original_index
from vtpbench.pruners.base import Grid, Pruner

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class CutTrace:
    """What one cut did; tokens are named by their places in the tower's order.

    Attributes
    ----------
    at : decoder layer, 0 = before the language model
    kept : (k,) the token that each row continues, -1 for one that has none
    places : tokens whose places merged rows take
    members : place of the merged row for each token that was merged
    segments : (n,) group of each token as the pruner gives it, or None

    """

    at: int
    kept: Ids
    places: Ids
    members: Mapping[int, int]
    segments: Ids | None = None


@dataclass(frozen=True)
class PruningTrace:
    """A pruner's work on an image.

    Attributes
    ----------
    original : vision tokens of the image without pruning
    grid : how the tokens lie that arrive at the first cut
    shrunk : whether the image was made smaller before the tower
    inside : whether tokens left inside the tower
    cut : whether tokens are taken out at all
    stops : the cuts; a single one that keeps everything where there is none
    answer : what the model says

    """

    original: int
    grid: Grid
    shrunk: bool
    inside: bool
    cut: bool
    stops: tuple[CutTrace, ...]
    answer: str


def trace_pruning(
    family: Family,
    pruner: Pruner,
    image: Image,
    key: str,
    question: str,
    budget: Callable[[int], int],
    longest: int,
) -> PruningTrace:
    """Ask a question about an image with a pruner, as a benchmark does.

    Parameters
    ----------
    family : the model
    pruner : what prunes
    image : what is shown
    key : name of the image, for seeded draws: its content hash, as in a run
    question : in the words that the prompt template takes
    budget : tokens for an image of so many
    longest : tokens of the answer

    """
    choices: list[RecordedSelection] = []
    pipeline = Pipeline(family, pruner, budget, lambda *seen: choices.append(RecordedSelection(*seen)))
    found = pipeline.run([Prompt(key, question, (image,))], longest)
    (tokens,), (answer,) = found.images[0], found.texts
    kept = tokens.kept(found.trace.kept[0] if found.batch.images else {})
    cuts = tokens.schedule.cuts
    return PruningTrace(
        original=tokens.original,
        grid=tokens.grid,
        shrunk=not cuts and len(tokens.index) < tokens.original,
        inside=len(set(tokens.tower)) > 1,
        cut=bool(cuts),
        stops=tuple(_stop(pruner, at, left, choices) for at, left in kept.items()),
        answer=answer,
    )


def _stop(pruner: Pruner, at: int, kept: Tensor, choices: Sequence[RecordedSelection]) -> CutTrace:
    choice = _behind(kept, [choice for choice in choices if choice.view.cut.at == at])
    if choice is None:
        return CutTrace(at, _ids(kept), np.empty(0, np.int64), {})
    original, merged = choice.view.index[0].cpu(), merged_rows(choice.view, choice.keep).cpu()
    rows = _origins(choice)
    members = {}
    if bool(merged.any()):
        into = merged_into(pruner, choice.view, merged)
        members = {int(original[token]): int(rows[into[token]]) for token in range(len(into)) if into[token] >= 0}
    segments = None
    with torch.inference_mode():
        found = pruner.apply_segments(choice.view)
    if found is not None:
        groups, arrived = found[0], _through_tower(pruner, choices) if at == 0 else None
        segments = np.full(choice.view.grid.n, -1)
        segments[_ids(original) if arrived is None else slice(None)] = _ids(groups if arrived is None else groups[arrived])
    return CutTrace(at, _ids(kept), _ids(rows[merged]), {t: row for t, row in members.items() if t >= 0}, segments)


def _through_tower(pruner: Pruner, choices: Sequence[RecordedSelection]) -> Tensor | None:
    """Row of those behind the tower in which each original token arrives, `(n,)`; None unless it was merged inside."""
    rows, count = None, 0
    for view, keep in ((choice.view, choice.keep) for choice in choices if choice.view.cut.at < 0):
        with torch.inference_mode():
            groups = pruner.apply_segments(view)
        if groups is None or not 0 <= int(groups.min()) <= int(groups.max()) < keep.k:
            return None
        rows, count = groups if rows is None else groups.gather(1, rows), keep.k
    if rows is None:
        return None
    tile = torch.arange(len(rows), device=rows.device)[:, None]
    return (rows + tile * count).flatten()


def _behind(kept: Tensor, choices: Sequence[RecordedSelection]) -> RecordedSelection | None:
    """Find the choice that was carried out: a family may try several, and drop tokens on padding from the best."""
    real = set(kept[kept >= 0].tolist())
    fitting = [choice for choice in choices if real <= set(_origins(choice).tolist())]
    return min(fitting, key=lambda choice: choice.keep.k, default=None)


def _origins(choice: RecordedSelection) -> Tensor:
    """Original place of each row, `(k,)` on the CPU; -1 for rows without one, and for filling."""
    keep, _ = clamp_and_flag(choice.keep, choice.view.n)  # filling may name anything
    (places,) = original_index(choice.view.index[:1], keep)
    return (places if choice.keep.valid is None else torch.where(choice.keep.valid[0], places, -1)).cpu()


def _ids(x: Tensor) -> Ids:
    return x.cpu().numpy().astype(np.int64)
