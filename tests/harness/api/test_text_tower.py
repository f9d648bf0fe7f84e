"""A text tower beside a model that is loaded, wrapped, shown, or asked through its own `generate`: the same choices in all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import vtpbench
from vtpbench.harness.cli.main import app
from vtpbench.harness.models.tiny import tiny_llava
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.registry import build

QUESTION = "Is there a cat on the mat, or a dog in the fog?"
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))  # as large as the tower sees it


@pytest.mark.parametrize("pruner", ["cdpruner", "trim"])
def test_pruners_that_read_with_it_choose_alike_wherever_it_is_named(
    pruner: str, stock: Any, tiny_checkpoint: Path, tiny_text_tower: Path
) -> None:
    expected = Pipeline(tiny_llava(), build(pruner, {}), lambda n: 6).run([Prompt("any", QUESTION, (IMAGE,))], 4).images[0][0]
    own = stock("llava")
    wrapped = vtpbench.wrap(own.model, own.processor, text_tower=tiny_text_tower)
    for model in (vtpbench.load(tiny_checkpoint, device="cpu", text_tower=tiny_text_tower), wrapped):
        with model.pruned(pruner, budget=6) as trace:
            model.answer(IMAGE, QUESTION, max_new_tokens=4)
        assert trace.kept[0][0] == expected.index.tolist()
    inputs = own.inputs([QUESTION], [[IMAGE]])
    with vtpbench.pruned(own.model, pruner, budget=6, processor=own.processor, text_tower=tiny_text_tower) as trace:
        own.generate(inputs, 4)
    assert trace.kept[0][0] == expected.index.tolist()


def test_without_one_the_line_says_what_to_do(stock: Any, tiny_checkpoint: Path) -> None:
    own = stock("llava")
    with pytest.raises(Unsupported, match="give it a `text_tower`"), own.wrapped.pruned("trim", budget=6):
        pass
    absent = vtpbench.load(tiny_checkpoint, device="cpu", text_tower="some/clip")
    with (
        pytest.raises(Unsupported, match=r"some/clip, which is not here; run `hf download some/clip`"),
        absent.pruned("trim", budget=6),
    ):
        pass
    with pytest.raises(UserError, match=r"text_tower /nowhere: no such folder"):
        vtpbench.load(tiny_checkpoint, device="cpu", text_tower="/nowhere")


def test_show_draws_what_they_keep(tiny_checkpoint: Path, tiny_text_tower: Path, tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "a.png")
    pages = []
    for more in ([], ["--text-tower", str(tiny_text_tower)]):
        out = tmp_path / f"{len(more)}.html"
        asked = ["--model", str(tiny_checkpoint), "--pruner", "cdpruner", "--budget", "6"]
        result = CliRunner().invoke(
            app, ["show", str(tmp_path / "a.png"), *asked, "--out", str(out), *more], catch_exceptions=False
        )
        assert result.exit_code == 0
        pages.append(out.read_text())
    assert "give it a `text_tower`" in pages[0]
    assert "before the LLM: 6 of 16" in pages[1]
