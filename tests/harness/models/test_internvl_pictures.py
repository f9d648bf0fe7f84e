"""Prompts and pixels as lmms-eval's own adapter of InternVL (`internvl_hf`, in chat form) hands them to `generate`."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GotOcr2ImageProcessor

from vtpbench.harness.models.internvl import InternVL
from vtpbench.harness.models.tiny import tiny_internvl

COLOURS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A smooth picture with some noise."""
    random, channels = np.random.default_rng(width), len(mode)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = 120 + 90 * np.sin(rows[..., None] / 9 + np.arange(channels)) * np.cos(columns[..., None] / 13)
    return Image.fromarray((waves + random.integers(0, 30, (height, width, channels))).astype(np.uint8), mode)


IMAGES = {
    "several tiles": [picture(320, 240)],
    "one tile": [picture(20, 20)],
    "tall": [picture(40, 500)],
    "transparent": [picture(120, 80, "RGBA")],
    "grey": [picture(90, 60).convert("L")],
    "two": [picture(200, 300), picture(64, 64)],
    "none": [],
}


class Catcher:
    """Stands where a model of transformers stands, and keeps what `generate` is given."""

    dtype = torch.float32

    def generate(self, **inputs: Any) -> Any:
        self.given = inputs
        return inputs["input_ids"]


def asked(family: InternVL, processor: Any, question: str, images: list[Image.Image]) -> dict[str, Any]:
    """What the adapter gives the model, with its default limits; all of it but for the loading of a checkpoint."""
    adapter = importlib.import_module("lmms_eval.models.chat.internvl_hf").InternVLHf
    made: Any = object.__new__(adapter)
    super(adapter, made).__init__()
    made._model, made.processor, made._tokenizer, made._device = Catcher(), processor, family.tokenizer, torch.device("cpu")
    made.min_patches, made.max_patches, made.num_frames, made.fps = 1, 12, 32, None
    made.batch_size_per_gpu, made.use_cache, made._rank, made._world_size = 1, True, 0, 1
    made.accelerator = SimpleNamespace(is_main_process=False, unwrap_model=lambda model: model)
    made.task_dict = {"mine": {"test": {0: None}}}
    content = [*({"type": "image", "url": image} for image in images), {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    made.generate_until([SimpleNamespace(args=(question, lambda doc: messages, {}, 0, "mine", "test"))])
    given: dict[str, Any] = made._model.given
    return given


@pytest.fixture(scope="module")
def family() -> InternVL:
    """With other limits in its checkpoint than the adapter's, and the colours of the published ones."""
    made = tiny_internvl(side=4, preprocessing="lmms_eval")
    made.image_processor.image_mean, made.image_processor.image_std = COLOURS["image_mean"], COLOURS["image_std"]
    return made


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_internvl_is_asked_as_lmms_eval_asks_it(images: list[Image.Image], family, internvl_processor) -> None:
    question = "What is left of it?"
    ours, theirs = family.stock_inputs(question, images), asked(family, internvl_processor(family), question, images)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert ("pixel_values" in ours) == ("pixel_values" in theirs) == bool(images)
    if images:
        torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], rtol=0, atol=1e-5)


def test_the_processor_that_the_adapter_loads_rounds_some_colours_otherwise(family, internvl_processor) -> None:
    """Torchvision's bicubic resizing against Pillow's: the same tiles, single values one or two grey levels apart."""
    images, limits = [picture(320, 240)], {"min_patches": 4, "max_patches": 4}
    torchvision = GotOcr2ImageProcessor(size={"height": 32, "width": 32}, **limits, **COLOURS)
    ours, theirs = family.stock_inputs("What?", images), asked(family, internvl_processor(family, torchvision), "What?", images)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    levels = (ours["pixel_values"] - theirs["pixel_values"]).abs() * 255 * torch.tensor(COLOURS["image_std"])[:, None, None]
    assert levels.max() < 2.5
    assert levels.mean() < 0.05
