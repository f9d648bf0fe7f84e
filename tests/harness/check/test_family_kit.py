"""The kit for model families: built-ins conform, and each way to get a family wrong is named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from vtpbench.harness.check import check_family, render_family
from vtpbench.harness.check.family_kit import FamilyReport, _builder, _judge
from vtpbench.harness.check.family_properties import FAMILY_PROPERTIES
from vtpbench.harness.check.family_subject import FamilySubject
from vtpbench.harness.cli.main import app
from vtpbench.harness.models import registry
from vtpbench.harness.models.dimensions import TowerDimensions
from vtpbench.harness.models.family import Family
from vtpbench.harness.models.llava import Llava
from vtpbench.harness.models.qwen3_vl import Qwen3VL
from vtpbench.harness.models.tiny import TINY, tiny_llava, tiny_llava_next, tiny_qwen3_vl
from vtpbench.harness.pruning.batch import VisionTokens
from vtpbench.pruners.base import Grid
from vtpbench.pruners.errors import UserError

PAGE = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
QUICK = ("stock", "positions", "evidence", "geometry", "prompts", "operations")
"""What tests of pruners on every family do not ask as well."""


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Tiny tensors only."""


def judged(build: Callable[..., Family], names: Sequence[str] = QUICK) -> FamilyReport:
    """Judge a builder's family by some properties."""
    built: dict[Any, Family] = {}

    def once(**how: Any) -> Family:
        return built.setdefault(tuple(how.items()), built.get(tuple(how.items())) or build(**how))

    subject = FamilySubject(once)
    results = tuple(_judge(p, subject.family, subject) for p in FAMILY_PROPERTIES if p.name in names)
    return FamilyReport("mine", "tests", results)


def native(**how: Any) -> Family:
    return tiny_llava_next(preprocessing="native", **how)


@pytest.mark.parametrize("build", [*TINY.values(), native], ids=[*TINY, "native"])
def test_built_in_families_conform(build: Callable[..., Family]) -> None:
    report = judged(build, QUICK)
    own = build is TINY["llava_next"]  # a protocol of the papers, which stock models do not have
    assert {(r.property, r.status) for r in report.results} == {
        (name, "unsupported" if own and name == "stock" else "pass") for name in QUICK
    }, report


class Shifted(Llava):
    """Counts positions from 1."""

    def positions(self, layout: Any, images: Any) -> Tensor:
        return super().positions(layout, images) + 1


class Unprojected(Llava):
    """Projects twice what it should."""

    def project(self, features: Tensor) -> Tensor:
        return 2 * super().project(features)


class Silent(Llava):
    """Leaves evidence out that was asked for."""

    def encode(self, group: Any, schedule: Any) -> VisionTokens:
        return replace(super().encode(group, schedule), evidence={})


class OutOfOrder(Llava):
    """Numbers tokens from the last."""

    def encode(self, group: Any, schedule: Any) -> VisionTokens:
        tokens = super().encode(group, schedule)
        return replace(tokens, index=tokens.index.flip(1))


class Boxless(Llava):
    """Draws all boxes beside the picture."""

    def boxes(self, image: Image.Image, grid: Grid) -> tuple[Image.Image, np.ndarray]:
        picture, boxes = super().boxes(image, grid)
        return picture, boxes + 1


class Imageless(Llava):
    """Forgets images in its prompts."""

    def render(self, question: str, n_images: int) -> str:
        return super().render(question, min(n_images, 1))


class Larger(Llava):
    """Says that its tower has twice the layers."""

    @classmethod
    def dimensions(cls, config: Any) -> tuple[TowerDimensions, tuple[int, ...]]:
        tower, projector = super().dimensions(config)
        return replace(tower, layers=2 * tower.layers), projector


class Crashing(Llava):
    """Breaks in its own code."""

    def stock_inputs(self, question: str, images: Any) -> dict[str, Any]:
        return {"input_ids": [question][1]}


class WithoutDeepStack(Qwen3VL):
    """Leaves out what is added inside the decoder, as `generate(inputs_embeds=...)` of transformers does."""

    def added_rows(self, images: Any) -> tuple[Tensor, ...]:
        return ()


def like(broken: type[Any], tiny: Callable[..., Any]) -> Callable[..., Family]:
    """Build the tiny model of a family with a broken class around it."""

    def build(**how: Any) -> Family:
        good = tiny(**how)
        way = "dynamic" if isinstance(good, Qwen3VL) else good.preprocessing
        made: Family = broken(good.model, good.tokenizer, good.image_processor, good.chat_template, way)
        return made

    return build


@pytest.mark.parametrize(
    ("broken", "tiny", "failing", "words"),
    [
        (Shifted, tiny_llava, {"stock", "positions"}, "not counted from 0"),
        (Unprojected, tiny_llava, {"stock"}, "logits of question 'short' with 1 images differ by"),
        (Silent, tiny_llava, {"evidence"}, "neither given nor refused; raise Unsupported"),
        (OutOfOrder, tiny_llava, {"geometry"}, "not numbered in their order"),
        (Boxless, tiny_llava, {"geometry"}, "16 boxes for 16 tokens, from 1 to 2"),
        (Imageless, tiny_llava, {"prompts", "stock"}, "a prompt with 2 images has 1 image tokens"),
        (Larger, tiny_llava, {"operations"}, "by `dimensions`"),
        (Crashing, tiny_llava, {"stock"}, "IndexError"),
        (WithoutDeepStack, tiny_qwen3_vl, {"stock"}, "with 1 images differ by"),
    ],
)
def test_each_way_to_be_wrong_is_named(broken: Any, tiny: Any, failing: set[str], words: str) -> None:
    report = judged(like(broken, tiny))
    failed = {result.property: result for result in report.results if result.status == "fail"}
    assert failing <= failed.keys()
    assert any(words in result.reason for result in failed.values()), failed
    assert not report.ok
    if broken is Crashing:
        assert failed["stock"].line.startswith("test_family_kit.py:")


def example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return str(code)


def test_the_family_of_the_tutorial_conforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vip_llava.py").write_text(example())
    monkeypatch.chdir(tmp_path)
    report = check_family("./vip_llava.py:VipLlava")
    assert report.ok
    assert {result.status for result in report.results} == {"pass"}
    shown = render_family(report)
    assert shown.endswith("./vip_llava.py:VipLlava of file ./vip_llava.py: conforms\n")
    assert json.loads(render_family(report, "json"))["ok"]
    table = PAGE.partition("| property | holds if |")[2]
    assert all(result.property in table for result in report.results)


INSTALLED = """
import json, sys, torch
from vtpbench.harness.models.load import describe_model, open_model
from vtpbench.harness.models.registry import find, tiny_models
from vtpbench.harness.cli.listing import models
made = tiny_models()["vipllava"](attention="sdpa", dtype=torch.float32)
for part in (made.model, made.image_processor, made.tokenizer):
    part.save_pretrained(sys.argv[1])
open(sys.argv[1] + "/chat_template.jinja", "w").write(made.chat_template)
opened = open_model(describe_model("mine", sys.argv[1]), torch.device("cpu"))
row = next(row for row in models() if row["model_type"] == "vipllava")
code = describe_model("mine", sys.argv[1]).info.family_code
print(json.dumps([type(opened).__name__, opened.shape.feature_layer, row["distribution"], row["preprocessing"], len(code)]))
"""


def test_an_installed_family_is_found_by_its_entry_point_and_opens_its_checkpoints(tmp_path: Path) -> None:
    info = tmp_path / "vip_llava-1.0.dist-info"
    info.mkdir()
    (tmp_path / "vip_llava.py").write_text(example())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vip-llava\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vtpbench.families]\nvipllava = vip_llava:VipLlava\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", INSTALLED, str(tmp_path / "checkpoint")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["VipLlava", 2, "vip-llava", "crop", 16]


def test_a_strangers_source_is_part_of_what_a_number_is_of(tmp_path: Path) -> None:
    file = tmp_path / "vip_llava.py"
    file.write_text(example())
    entry = registry.find(f"{file}:VipLlava")
    before = entry.code()
    file.write_text(example() + "\n# an edit\n")
    assert before != entry.code() != registry.find("llava").code() is None


def given(monkeypatch: pytest.MonkeyPatch, **targets: str) -> None:
    """Let installed distributions give these families."""
    points = tuple((name, target, "theirs") for name, target in targets.items())
    monkeypatch.setattr(registry, "installed", lambda group: points if group == "vtpbench.families" else ())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module:Mine", "of theirs cannot be imported: ModuleNotFoundError"),
        ("json:loads", "loads is no class that derives from vtpbench.harness.models.family.Family"),
        ("json:Nothing", "Nothing is no class that derives from"),
        ("vtpbench.harness.models.family:Family", "Family lacks __init__, decoder, describe, encode, group"),
    ],
)
def test_what_is_no_family_is_refused_with_whose_it_is(target: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, mine=target)
    with pytest.raises(UserError, match=f"model family 'mine' of theirs.*{words}|{words}"):
        registry.find("mine").load()
    assert registry.find("llava").load() is Llava


def test_a_name_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, qwen2_vl="json:loads")
    with pytest.raises(UserError, match="'qwen2_vl' is provided by both vtpbench and theirs; uninstall one of them"):
        registry.entries()


def test_a_family_follows_its_own_rule_for_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.answer_rule("qwen2_vl").strips
    assert registry.answer_rule("unheard of") == registry.answer_rule("llava")


def test_a_checkpoint_is_judged_as_it_is_loaded(tiny_checkpoint: Path) -> None:
    whose, build = _builder(str(tiny_checkpoint))
    assert whose == "llava of vtpbench"
    assert build(attention="eager", dtype=torch.bfloat16).model.dtype == torch.bfloat16
    assert judged(build, ("stock",)).ok


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name what to judge"),
        (["fastv", "--model", "llava"], "name what to judge"),
        (["--model", "llava", "--family", "llava"], "leave them out with --model"),
        (["--model", "lava"], "unknown model family 'lava'; did you mean 'llava'?"),
        (["--model", "./nothing.py:Mine"], "no family file nothing.py"),
        (["--model", "./nothing.py"], "names a file; add its class: ./nothing.py:Class"),
        (["--model", "./nothing"], "no checkpoint folder ./nothing"),
        (["--model", "original_llava"], "OriginalLlava has no tiny model to check with"),
    ],
)
def test_mistakes_name_the_fix(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["check", *arguments])
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())
