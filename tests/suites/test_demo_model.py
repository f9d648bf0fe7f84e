import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from vtpbench.harness.models.llava import Llava
from vtpbench.harness.models.load import describe_model, open_model
from vtpbench.pruners.random import Random
from vtpbench.pruners.text_only import TextOnly
from vtpbench.pruners.vanilla import Vanilla
from vtpbench.suites.demo.build import Recipe
from vtpbench.suites.demo.card import accuracies, write_card
from vtpbench.suites.demo.questions import TASKS

QUESTIONS = 60


@pytest.fixture(scope="module")
def folder(request) -> Path:
    return request.config.rootpath / "suites" / "demo" / "model"


@pytest.fixture(scope="module")
def model(folder) -> Llava:
    return open_model(describe_model("demo", str(folder)), torch.device("cpu"))


def test_the_checkpoint_is_what_the_card_says(folder) -> None:
    described = describe_model("demo", str(folder))
    assert described.info.vision_tokens == 144
    assert described.shape.has_cls
    assert described.shape.vision_layers >= 8
    assert described.shape.decoder_layers >= 8
    assert described.shape.feature_layer == described.shape.vision_layers - 2
    assert sum(f.stat().st_size for f in folder.iterdir()) < 20 << 20
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlavaForConditionalGeneration"]


def test_it_looks_and_pruning_matters(model) -> None:
    whole = accuracies(model, Vanilla(), None, 0, QUESTIONS)
    blind = accuracies(model, TextOnly(), 1, 0, QUESTIONS)
    pruned = accuracies(model, Random(), 16, 0, QUESTIONS)
    mean = {name: sum(scores.values()) / len(scores) for name, scores in (("w", whole), ("b", blind), ("p", pruned))}
    assert mean["w"] - mean["b"] > 0.25
    assert mean["w"] - mean["p"] > 0.10


def test_the_card_shows_what_was_measured(folder, model, tmp_path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    facts = {
        "recipe": asdict(Recipe(seed=3)),
        "stages": {"tower": {"minutes": 7}},
        "versions": {"torch": "2"},
        "machine": "a laptop",
    }
    write_card(copy, facts, questions=2)
    card = (copy / "README.md").read_text()
    header, _, *rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("|")][:5]
    assert header == [*TASKS, "mean"]
    assert [row[0] for row in rows] == ["unpruned (144 vision tokens)", "blind (no image)", "random pruning to 16 tokens"]
    measured = [100 * share for share in accuracies(model, Vanilla(), None, 3, 2).values()]
    assert [float(cell) for cell in rows[0][1:]] == [*measured, sum(measured) / len(TASKS)]
    stages = ("| tower | 32 | 4000 | 0.0012 | tower | 7 |", "| joint | 8 | 150 | 0.0005 | everything |")
    for fact in (*stages, "2 questions a task", "seed 3", "on a laptop", "Versions: torch 2."):
        assert fact in card
