"""One batch of prompts on a GPU that is only pretended: what waits before the first token, and how much each stage launches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pretended_gpu import PretendedGpu, Wait, moved, pretended_gpu
from torch import nn

from vtpbench.harness.efficiency.stages import Prompts, PrunerAtBudget, run
from vtpbench.harness.models.family import Family

SPAN = ("pruner", "projector", "prefill")
"""Stages between the end of the tower and the first token."""


@dataclass(frozen=True)
class Rehearsal:
    """What was seen.

    Attributes
    ----------
    waits : between the end of the vision tower and the first token, in order of time
    launched : operations that each stage gives to the device

    """

    waits: list[Wait]
    launched: Counter[str]


@contextmanager
def on_pretended_gpu(family: Family) -> Iterator[PretendedGpu]:
    """Bring a model of the host to a pretended GPU, with graphs; afterwards it is as before."""

    def drop() -> None:
        family.forget_graphs()
        vars(family).pop("_capture", None)

    with pretended_gpu() as gpu, moved(family.model):
        drop()
        yield gpu
    drop()


def rehearse(subject: PrunerAtBudget, prompts: Prompts) -> Rehearsal:
    """Run a model of the host on a pretended GPU.

    What is made once for each geometry and then kept for the next picture is not counted: the run is the second one.
    """
    quick = Prompts(prompts.images, prompts.question, 2)
    tower = nn.Module() if subject.family.open_text_tower is None else subject.family.text_tower
    assert isinstance(tower, nn.Module), "vtpbench's own"
    with pretended_gpu() as gpu, moved(subject.family.model), moved(tower):
        run(subject, quick, lambda stage: None)
        waits: list[Wait] = []
        launched: Counter[str] = Counter()
        gpu.waits.clear()
        gpu.launched = 0

        def mark(stage: str) -> None:
            launched[stage] += gpu.launched
            waits.extend(gpu.waits if stage in SPAN else ())
            gpu.waits.clear()
            gpu.launched = 0

        run(subject, quick, mark)
    return Rehearsal(waits, launched)
