"""Passes and steps that a GPU replays give what they give when they are run: on the pretended GPU, whose graphs do nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from pretended_gpu import GPU, PretendedGpu, moved, pretended_gpu
from pruner_options import options_for
from torch import Tensor

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY, tiny_llava
from vtpbench.harness.pruning.captured_passes import CapturedPasses, Pass, cuda_graphs
from vtpbench.harness.pruning.pipeline import Pipeline, PipelineResult, Prompt
from vtpbench.pruners.base import Cut, ModelShape, Pruner, TokenView
from vtpbench.pruners.registry import build
from vtpbench.pruners.transfer import copy_to_device

CUTTERS = ("fastv", "pyramiddrop", "sparsevlm", "dart")
SAME, LONGER = ["What?", "Whom?", "Whim?"], ["What is that?", "Whom?"]
"""Equally long; and not, so that prompts are padded."""


@contextmanager
def on_gpu(model: Family) -> Iterator[PretendedGpu]:
    made = ("_capture", "captured_steps", "captured_passes")
    with pretended_gpu() as gpu, moved(model.model):
        for name in made:
            vars(model).pop(name, None)
        yield gpu
    for name in made:
        vars(model).pop(name, None)


def asked(model: Family, pruner: Pruner, *, budget: bool = True, **options: Any) -> Pipeline:
    model.model.generation_config.eos_token_id = None
    return Pipeline(model, pruner, (lambda n: n // 2) if budget else (lambda n: None), **options)


def prompts(tools: Any, questions: list[str], turn: int = 0) -> list[Prompt]:
    return [Prompt(f"{turn} {n}", text, [tools.picture(40, 30, 10 * turn + n)]) for n, text in enumerate(questions)]


def seen(result: PipelineResult) -> object:
    kept = {image: {at: left.tolist() for at, left in cuts.items()} for image, cuts in result.trace.kept.items()}
    return result.texts, kept, result.trace.per_layer, result.trace.finite


@pytest.mark.parametrize("name", ["vanilla", *CUTTERS])
@pytest.mark.parametrize("family", TINY)
def test_what_is_replayed_answers_as_what_is_run(family: str, name: str, tools: Any) -> None:
    model = TINY[family]()
    own = asked(model, build(name, options_for(name, family)), budget=name != "vanilla", graphs=True)
    turns = [prompts(tools, [text], turn) for turn, text in enumerate(SAME)]
    expected = [seen(replace(own, graphs=False).run(turn, 3)) for turn in turns]
    with on_gpu(model):
        assert [seen(own.run(turn, 3)) for turn in turns] == expected
        passes, steps = model.captured_passes, model.captured_steps
        prefill = "prefill" if name == "vanilla" else f"prefill with {type(own.pruner).__name__}"
        assert passes.replays.get(prefill) == 2  # the second time it is captured
        assert passes.replays.get("tower") == (2 if family.startswith("llava") else None)
        assert passes.refused.keys() == (set() if family.startswith("llava") else {"tower"})
        assert (steps.refused, steps.captured) == (None, 1)
