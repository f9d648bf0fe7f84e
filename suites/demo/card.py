"""Measure the exported model on scenes that neither training nor the benchmarks use, and write its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.load import describe_model, open_model
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.run.questions import Question
from vtpbench.pruners.base import Pruner
from vtpbench.pruners.random import Random
from vtpbench.pruners.text_only import TextOnly
from vtpbench.pruners.vanilla import Vanilla
from vtpbench.suites.demo.export import benchmark_questions
from vtpbench.suites.demo.questions import TASKS
from vtpbench.suites.demo.scenes import render, sample_scene

QUESTIONS = 400
"""Of each task."""
BUDGET = 16


def accuracies(model: Family, pruner: Pruner, budget: int | None, seed: int, questions: int = QUESTIONS) -> dict[str, float]:
    """Measure the share of exactly right answers of each task on held-out scenes."""
    found = {}
    for task in TASKS:
        rows = benchmark_questions(task, seed, "heldout", questions)
        asked = [
            Question(str(n), q.prompt, lambda seeds=seeds: [render(sample_scene(seeds))[0]], 8)  # type: ignore[misc]  # a default argument binds the loop's value
            for n, (seeds, q) in enumerate(rows)
        ]
        answerer = Answerer(Pipeline(model, pruner, lambda n: budget), 32)
        right = [a.text.strip() == rows[int(a.sample)][1].answer for batch in answerer.answer(asked) for a in batch]
        found[task] = sum(right) / len(right)
    return found


def write_card(folder: Path, facts: dict[str, Any], questions: int = QUESTIONS) -> None:
    """Write `README.md` beside the weights; `facts` comes from the build, `questions` are those of each task."""
    model = open_model(describe_model("demo", str(folder)), torch.device("cpu"))
    seed = facts["recipe"]["seed"]
    rows = {
        "unpruned (144 vision tokens)": accuracies(model, Vanilla(), None, seed, questions),
        "blind (no image)": accuracies(model, TextOnly(), 1, seed, questions),
        f"random pruning to {BUDGET} tokens": accuracies(model, Random(), BUDGET, seed, questions),
    }
    table = ["| | " + " | ".join(TASKS) + " | mean |", "|---|" + "---:|" * (len(TASKS) + 1)]
    for name, scores in rows.items():
        cells = [*scores.values(), sum(scores.values()) / len(scores)]
        table.append(f"| {name} | " + " | ".join(f"{100 * c:.1f}" for c in cells) + " |")
    recipe = {key: value for key, value in facts["recipe"].items() if key != "answer_stages"}
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    size = sum(p.numel() for p in model.model.parameters())
    text = _TEXT.format(
        size=f"{size / 1e6:.2f}",
        table="\n".join(table),
        questions=questions,
        stages=_stages(facts),
        recipe=", ".join(f"{key} {value}" for key, value in recipe.items()),
        machine=facts["machine"],
        versions=versions,
    )
    (folder / "README.md").write_text(text)


def _stages(facts: dict[str, Any]) -> str:
    """Table of the stages with their times."""
    recipe = facts["recipe"]
    tower = {"name": "tower", "scenes": recipe["tower_batch"], "steps": recipe["tower_steps"], "rate": recipe["tower_rate"]}
    lines = ["| stage | scenes a step | steps | peak rate | trains | minutes |", "|---|---:|---:|---:|---|---:|"]
    for stage in (tower, *recipe["answer_stages"]):
        parts = "everything" if stage.get("joint") else "tower" if stage is tower else "projector, language model"
        minutes = facts["stages"].get(stage["name"], {}).get("minutes", "")
        lines.append(f"| {stage['name']} | {stage['scenes']} | {stage['steps']} | {stage['rate']} | {parts} | {minutes} |")
    return "\n".join(lines)


_TEXT = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# The demo model of vtpbench

A LLaVA of {size} million parameters (`LlavaForConditionalGeneration`): CLIP tower with CLS, 96 x 96 pixels in 12 x 12 = 144
vision tokens, 8 layers of width 128, features of layer -2; two-layer projector; Llama of 8 layers, width 128, 4 heads, 2
key heads. It answers short questions about generated scenes of shapes, letters and digits, and nothing else. It exists so
that vtpbench's whole path runs anywhere in minutes, on a model that really looks; it says nothing about real images.

## Accuracy

Share of exactly right answers, per cent, {questions} questions a task, on held-out scenes (neither trained on nor in the
benchmarks):

{table}

`exist`: yes/no, balanced; `open`: one word (colour, shape, count, side); `choice`: one of four by letter; `read`: letters
and digits. The blind row asks the same model without an image; 6 % of its training prompts had none, so that it guesses as
well as it can.

## Training

Generated scenes only (`vtpbench.suites.demo.scenes`, `questions`); no photographs, no text from elsewhere. The stages: the
tower alone by dense supervision; projector and language model on the frozen tower, first on drills (an object's tokens, bare
questions), then as asked; everything together; and again with more of what was missing, counts and sides. The command
`python -m vtpbench.suites.demo.build --work DIR` repeats all of it.

Times of this build, on {machine}, with other work beside it, so that they say little:

{stages}

{recipe}. Questions, drills and what patches are aligned with: `Recipe` in `suites/demo/build.py`.

Versions: {versions}. Weights are stored in half precision. Licence: Apache-2.0, like the code.
"""
