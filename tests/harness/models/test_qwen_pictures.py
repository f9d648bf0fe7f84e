"""Prompts and pixels as lmms-eval's own adapter of a Qwen-VL model hands them to `generate`."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from vtpbench.harness.models.qwen_pictures import PictureRule, fitted
from vtpbench.harness.models.qwen_vl import QwenVL
from vtpbench.harness.models.tiny import tiny_qwen2_vl, tiny_qwen3_vl


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A smooth picture with some noise, as JPEG files like it, and none."""
    random, channels = np.random.default_rng(width), len(mode)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = 120 + 90 * np.sin(rows[..., None] / 9 + np.arange(channels)) * np.cos(columns[..., None] / 13)
    return Image.fromarray((waves + random.integers(0, 30, (height, width, channels))).astype(np.uint8), mode)


@pytest.mark.parametrize("unit", [28, 32])
def test_sides_are_those_of_qwen_vl_utils(unit: int) -> None:
    theirs = pytest.importorskip("qwen_vl_utils.vision_process").smart_resize
    random = np.random.default_rng(0)
    sides = np.exp(random.uniform(np.log(20), np.log(4000), (400, 2))).astype(int).tolist()
    for height, width in [*sides, (28, 28), (56, 56), (14, 14), (776, 776), (1500, 12)]:
        for limits in ((3136, 602112), (200704, 1605632)):
            rows, columns = fitted(height, width, unit, *limits)
            expected = theirs(height, width, unit, *limits)
            assert (rows * unit, columns * unit) == tuple(max(unit, side) for side in expected)


def test_what_is_too_elongated_is_refused() -> None:
    with pytest.raises(ValueError, match="aspect ratio must be at most 200, and is 450"):
        fitted(900, 2, 28, 3136, 602112)


def test_what_is_transparent_is_laid_on_white_or_shows_what_is_behind() -> None:
    clear = Image.new("RGBA", (4, 4), (200, 10, 10, 0))
    assert PictureRule(on_white=True).ready(clear).getpixel((0, 0)) == (255, 255, 255)
    assert PictureRule().ready(clear).getpixel((0, 0)) == (200, 10, 10)


class Caught(Exception):
    """Holds what `generate` was given."""


class Catcher:
    """Stands where a model of transformers stands."""

    def generate(self, **inputs: Any) -> Any:
        raise Caught(inputs)


def adapter(name: str, kind: str, family: QwenVL, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make an adapter of lmms-eval, all of it but for the loading of a checkpoint; limits are its defaults."""
    pytest.importorskip("qwen_vl_utils")
    stub = ModuleType("decord")  # reads videos, which nothing here shows
    monkeypatch.setitem(sys.modules, "decord", stub)
    stub.VideoReader = stub.cpu = None  # type: ignore[attr-defined]
    made: Any = object.__new__(getattr(importlib.import_module(f"lmms_eval.models.simple.{name}"), kind))
    made._tokenizer, made._device, made.device_map = family.tokenizer, torch.device("cpu"), "cpu"
    made.batch_size_per_gpu, made.use_cache, made._rank, made._world_size = 1, True, 1, 1
    made._model, made.accelerator = None, SimpleNamespace(unwrap_model=lambda model: Catcher())
    made.reasoning_prompt, made.interleave_visuals, made.max_num_frames = None, False, 1
    made.system_prompt = "You are a helpful assistant."
    return made


def caught(made: Any, question: str, images: list[Image.Image]) -> dict[str, Any]:
    made.task_dict = {"mine": {"test": {0: None}}}
    with pytest.raises(Caught) as told:
        made.generate_until([SimpleNamespace(args=(question, {}, lambda doc: images, 0, "mine", "test"))])
    return told.value.args[0]


IMAGES = {
    "small": [picture(90, 60)],
    "large": [picture(1400, 900)],
    "tall": [picture(40, 1000)],
    "transparent": [picture(120, 80, "RGBA")],
    "two": [picture(200, 300), picture(64, 64)],
    "none": [],
}


def compare(family: QwenVL, theirs: dict[str, Any], question: str, images: list[Image.Image]) -> None:
    ours = family.stock_inputs(question, images)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert ("pixel_values" in ours) == ("pixel_values" in theirs) == bool(images)
    if images:
        assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
        torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_qwen2_vl_is_asked_as_lmms_eval_asks_it(images: list[Image.Image], monkeypatch) -> None:
    family = tiny_qwen2_vl(preprocessing="lmms_eval", patch=14)
    made = adapter("qwen2_vl", "Qwen2_VL", family, monkeypatch)
    made.min_pixels, made.max_pixels = 3136, 602112
    parts = {"tokenizer": family.tokenizer, "video_processor": Qwen2VLVideoProcessor(), "chat_template": family.chat_template}
    sizes = {"patch_size": 14, "merge_size": 2, "min_pixels": made.min_pixels, "max_pixels": made.max_pixels}
    made.processor = Qwen2VLProcessor(image_processor=Qwen2VLImageProcessor(**sizes), **parts)
    question = "What is <image>left of it?"
    compare(family, caught(made, question, images), question, images)


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_qwen3_vl_is_asked_as_lmms_eval_asks_it(images: list[Image.Image], monkeypatch) -> None:
    family = tiny_qwen3_vl(preprocessing="lmms_eval", patch=16)
    made = adapter("qwen3_vl", "Qwen3_VL", family, monkeypatch)
    made.min_pixels, made.max_pixels, made.total_pixels, made.fps, made.enable_thinking = 200704, 1605632, None, None, None
    parts = {"tokenizer": family.tokenizer, "video_processor": Qwen3VLVideoProcessor(), "chat_template": family.chat_template}
    made.processor = Qwen3VLProcessor(image_processor=Qwen2VLImageProcessor(patch_size=16, merge_size=2), **parts)
    question = "What is <image>left of it?"
    compare(family, caught(made, question, images), question, images)
