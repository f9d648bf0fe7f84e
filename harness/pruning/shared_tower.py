"""One pass of the vision tower for several pruners, with the evidence that they need together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vtpbench.harness.pruning.batch import ImageGroup, VisionTokens
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.pruning.schedule import EvidenceCollector, Schedule
from vtpbench.harness.pruning.shared_choices import SharedChoices
from vtpbench.pruners.base import Evidence
from vtpbench.pruners.errors import Impossible, UserError
from vtpbench.pruners.lazy import torch


@torch.inference_mode()
def encode_together(pipelines: Sequence[Pipeline], groups: Sequence[ImageGroup]) -> list[list[VisionTokens] | None]:
    """Take step 1 for several pruners of one model in one pass of the tower, with the evidence that they need together.

    None for a pruner that changes the tower's input or inside, needs no tower, or cannot plan for these images: it has to
    take the step by itself.
    """
    planned = [[_shareable(pipeline, group) for pipeline in pipelines] for group in groups]
    alone = [any(plans[n] is None for plans in planned) for n in range(len(pipelines))]
    found: list[list[VisionTokens]] = [[] for _ in pipelines]
    for group, plans in zip(groups, planned, strict=True):
        sharing = {n: plan for n, plan in enumerate(plans) if plan is not None and not alone[n]}
        if not sharing:
            continue
        model, needs = pipelines[0].model, frozenset[Evidence]().union(*(plan.needs for plan in sharing.values()))
        with model.captured_passes.applied(all(pipelines[n].graphs for n in sharing)):
            tokens = model.encode(group, Schedule(EvidenceCollector(needs), model.shape, needs))
        shared = SharedChoices(
            [(plan.pruner, plan.cuts[0].keep) for plan in sharing.values() if plan.cuts[:1] and plan.cuts[0].at == 0]
        )
        for n, plan in sharing.items():
            own = {need: tokens.evidence[need] for need in plan.needs if need in tokens.evidence}
            found[n].append(replace(tokens, schedule=replace(plan, shared=shared), evidence=own))
    return [None if alone[n] else own for n, own in enumerate(found)]


def _shareable(pipeline: Pipeline, group: ImageGroup) -> Schedule | None:
    """Plan for images; None where the tower would not run as it is."""
    try:
        schedule = pipeline.schedule(group)
    except (Impossible, UserError):
        return None
    changes_tower = schedule.target_grid is not None or schedule.tower_cuts or schedule.skips_tower
    return None if changes_tower else schedule
