"""The cell: one model x pruner x budget x benchmark x seed, and the identity that resuming rests on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

from vtpbench.harness.records.names import is_picture_name
from vtpbench.harness.records.record import BenchmarkInfo, BudgetInfo, ModelInfo, PrunerInfo, Record


@dataclass(frozen=True)
class Cell:
    """Everything that can change a number of one table entry."""

    model: ModelInfo
    pruner: PrunerInfo
    budget: BudgetInfo
    benchmark: BenchmarkInfo
    seed: int
    batch_size: int
    versions: Mapping[str, str]
    """Of lmms-eval, transformers, torch, pillow, tokenizers, and the harness's own code."""
    share_prefix: bool = True
    """Whether questions about a picture are asked behind one prefill of it, where that can be."""
    graphs: bool = True
    """Whether decoding steps keep their shapes and addresses on a GPU, which can then replay them as graphs."""
    seeds: tuple[int, ...] = ()
    """All that the suite asks for of this row and benchmark: a report can tell which are missing. No part of the identity."""

    @cached_property
    def id(self) -> str:
        """Content hash, 16 hexadecimal digits; labels and places are left out, they change no number."""
        left_out = {"label", "id", *(["family_code"] if self.model.family_code is None else [])}
        facts = {
            "model": self.model.model_dump(mode="json", exclude=left_out),  # the hash of its files names it
            "pruner": _without_places(self.pruner),
            "budget": self.budget.model_dump(mode="json"),
            "benchmark": self.benchmark.model_dump(mode="json", exclude={"label"}),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "share_prefix": self.share_prefix,
            "graphs": self.graphs,
            "versions": dict(self.versions),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def is_vanilla(self) -> bool:
        """Whether this is a denominator."""
        return self.pruner.name == "vanilla"

    def __str__(self) -> str:
        return cell_name(self)


def cell_name(of: Cell | Record) -> str:
    """Name a cell, or the cell of a record, as people call it."""
    budget = "" if of.pruner.name == "vanilla" else f" @ {of.budget.label}"
    return f"{of.model.label} / {of.pruner.label}{budget} / {of.benchmark.label} / seed {of.seed}"


def _without_places(pruner: PrunerInfo) -> dict[str, Any]:
    """State a pruner such that it is the same wherever its own file and the files that its options name lie.

    The hash in `code` stands for the content of its own file, that in `fingerprint` for that of the others.
    """
    facts = pruner.model_dump(mode="json", exclude={"label"})
    if pruner.is_file:
        facts |= {"name": pruner.placeless, "distribution": "file"}
    if pruner.fingerprint is not None:
        facts["options"] = {**pruner.options, **dict.fromkeys(pruner.files, "")}
    return facts


def tokens_for(budget: BudgetInfo, n: int) -> int:
    """Average tokens that a budget means for an image of `n` tokens: no more than these, a ratio at least one."""
    if budget.tokens is not None:
        return min(budget.tokens, n)
    return n if budget.ratio is None else max(1, round(budget.ratio * n))


Tiles: TypeAlias = tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
"""Edges of the columns, and of the rows, of each tile of tokens, pixels; tokens are numbered tile after tile, in raster order."""


@dataclass(frozen=True)
class KeptTokens:
    """Which vision tokens of one image stayed, and where they lie in a picture of it."""

    picture: str
    """Name of the picture in the results of the suite."""
    tokens: int
    """Vision tokens of the image before pruning."""
    tiles: Tiles
    cuts: tuple[tuple[int, tuple[int, ...]], ...]
    """Layer of each cut, 0 = before the language model, with the tokens that stay; -1 = a row without a place."""

    def __post_init__(self) -> None:
        if not is_picture_name(self.picture):
            raise ValueError(f"{self.picture!r} is no name of a picture")


@dataclass(frozen=True)
class Answer:
    """One answered question, as the journal keeps it."""

    sample: str
    """Name of the sample within its task: lmms-eval's document number."""
    text: str
    images: tuple[str, ...]
    """Names of the sample's images: content hashes."""
    original: tuple[int, ...]
    """Vision tokens of each image before pruning."""
    per_layer: tuple[tuple[int, ...], ...]
    """For each image, the vision tokens that entered each decoder layer, counted in the forward pass."""
    kept: tuple[KeptTokens, ...] = ()
    """For each image of a question that is pictured; see `vtpbench.harness.run.pictures`."""
    finite: bool = True
    """Whether the logits of all its tokens were finite; an answer of others means nothing."""
    ended: bool = True
    """Whether it came to an end, by itself or at a stop string, before it had as many tokens as it may."""
    written: int = 0
    """Tokens that were generated for it: the one that ended it is one of them, and so is what stands behind a stop string."""
    perceptual_hash: str = ""
    """Of the first image, the same for a photograph that is stored otherwise; see `vtpbench.harness.host.images`."""


class Journal(Protocol):
    """Where a cell's answers go as they come, so that a killed run loses at most one batch."""

    def known(self) -> dict[str, Answer]:
        """Answers of an earlier, interrupted attempt at the same cell, by sample."""
        ...

    def add(self, answers: list[Answer]) -> None:
        """Write a finished batch to disk before returning."""
        ...

    def remove(self) -> None:
        """Forget the answers."""
        ...


@dataclass(frozen=True)
class Sample:
    """One row of the per-sample table."""

    sample: str
    image: str
    """Content hash of the sample's first image, the default resampling unit."""
    category: str
    prompt: str
    answer: str
    target: str
    score: float | None
    """0-1 where the task scores samples one by one."""
    tokens: float
    """Vision tokens that entered a decoder layer, mean over layers and images."""
    detail: str
    """The task's own per-sample results as JSON."""
    kept: str = ""
    """Kept tokens of the sample's images as JSON, a list of `KeptTokens`; empty where the sample is not pictured."""
    images: str = ""
    """Content hashes of all of the sample's images as they were decoded, with blanks between."""
    perceptual_hash: str = ""
    """Of the first image; empty where it has none, and in tables from before it was noted."""
