"""What each registered pruner does, as rows for `vtpbench list pruners` and the documentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vtpbench.harness.host.plugin_errors import describe_failure
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import PrunerEntry, build, entries

if TYPE_CHECKING:
    from vtpbench.pruners.base import Pruner

BUDGET, TOKENS = 192, 576


@dataclasses.dataclass(frozen=True)
class PrunerSummary:
    """A pruner with its default options, as it acts on LLaVA-1.5-7B at 192 of 576 tokens."""

    name: str
    year: int | None
    venue: str
    acts_at: str
    needs: str
    question: str
    """Whether what is kept depends on what is asked, `yes` or `no`; empty where that is not known."""
    source: str
    distribution: str


def list_pruners() -> list[PrunerSummary]:
    """Describe all registered pruners by name; raises `UserError` for one that cannot be imported."""
    return [_row(entry) for _, entry in sorted(entries().items())]


def summary_of(name: str) -> PrunerSummary:
    """Describe one registered pruner; raises `UserError` where it cannot be imported."""
    return _row(entries()[name])


def _row(entry: PrunerEntry) -> PrunerSummary:
    cls = entry.load()
    question = ""
    try:
        acts_at, needs, question = _described(build(entry.name, {}))
    except UserError:  # options without a default, or without a usable one
        acts_at, needs = "depends on its options", "options"
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # a stranger's pruner may fail in any way, or exit, and the others are to be listed
        acts_at, needs = "broken", describe_failure(entry.name, e)
    return PrunerSummary(entry.name, cls.year, cls.venue, acts_at, needs, question, cls.source, entry.distribution)


def _described(pruner: Pruner) -> tuple[str, str, str]:
    """Say where a pruner acts, what it needs, and whether it looks at the question."""
    from vtpbench.pruners.base import DECODER_KINDS, LLAVA_1_5_7B, Grid, TextTowerSource

    clip = TextTowerSource("openai/clip-vit-large-patch14-336", "any")
    shape = dataclasses.replace(LLAVA_1_5_7B, text_tower=clip)
    cuts = pruner.cuts(BUDGET, TOKENS, shape)
    tower = [cut.at % shape.vision_layers for cut in pruner.tower_cuts(BUDGET, TOKENS, shape)]
    shrinks = pruner.target_grid(BUDGET, Grid(1, 24, 24), shape) is not None
    acts_at = "the image" if shrinks else _inside(tower) if tower else _places([cut.at for cut in cuts])
    try:
        kinds = {evidence.kind for evidence in pruner.needs(shape)}
        needs = ", ".join(sorted(kinds))
    except UserError as e:
        kinds, needs = set(), str(e).partition(";")[0]
    return acts_at, needs, "yes" if pruner.reads_question or kinds & DECODER_KINDS else "no"


def _inside(layers: list[int]) -> str:
    return f"vision layers {layers[0]}-{layers[-1]}" if len(layers) > 1 else f"vision layer {layers[0]}"


def _places(cuts: Iterable[int]) -> str:
    inside = [str(at) for at in cuts if at > 0]
    before = ["before the LLM"] if 0 in cuts else []
    return ", ".join([*before, *([f"layer {', '.join(inside)}"] if inside else [])]) or "nowhere"
