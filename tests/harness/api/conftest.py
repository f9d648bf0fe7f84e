"""Stock models of transformers with their own processors, as somebody else has loaded them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from PIL import Image
from pruner_options import JOINING, ONEVISION, QWEN
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaNextProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    Qwen2_5_VLProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

import vtpbench
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.suite.options import model_path

ALIKE = {"llava": "crop", "demo": "crop", "llava_next": "native", ONEVISION: "native", **dict.fromkeys(JOINING, "dynamic")}
"""Preprocessing that makes of an image what the stock processor makes."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Stock:
    """A stock model, its processor, and the same model wrapped."""

    name: str
    model: Any
    processor: Any
    wrapped: vtpbench.Model

    def prompt(self, question: str, images: int = 1) -> str:
        content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": question}]
        system = self.wrapped._family.system
        said = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        return self.processor.apply_chat_template([*said, {"role": "user", "content": content}], add_generation_prompt=True)

    def inputs(self, questions: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> Any:
        texts = [self.prompt(question, len(own)) for question, own in zip(questions, images, strict=True)]
        flat = [image for own in images for image in own]
        return self.processor(images=flat or None, text=texts, return_tensors="pt", padding=True)

    def generate(self, inputs: Any, tokens: int = 8, **options: Any) -> Tensor:
        """Ids of the answers."""
        return self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False, **options)[:, inputs["input_ids"].shape[1] :]

    def texts(self, ids: Tensor) -> list[str]:
        return [text.strip() for text in self.processor.batch_decode(ids, skip_special_tokens=True)]

    def hooks(self) -> list[Any]:
        """All hooks, but those that transformers leaves behind where it has captured hidden states."""
        kinds = [(m._forward_pre_hooks, m._forward_hooks) for m in self.model.modules()]
        return [hook for pair in kinds for own in pair for hook in own.values() if "output_captur" not in str(hook)]


def _processor(name: str, family: Any) -> Any:
    if name in QWEN:
        parts = {
            "tokenizer": family.tokenizer,
            "video_processor": (Qwen3VLVideoProcessor if name == "qwen3_vl" else Qwen2VLVideoProcessor)(),
            "chat_template": family.chat_template,
        }
        kind = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor, "qwen3_vl": Qwen3VLProcessor}[name]
        return kind(image_processor=family.image_processor, **parts)
    if name == ONEVISION:
        facts = {"num_image_tokens": 16, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_3"}
        parts = {"tokenizer": family.tokenizer, "video_processor": LlavaOnevisionVideoProcessor()}
        return LlavaOnevisionProcessor(family.image_processor, **parts, chat_template=family.chat_template, **facts)
    return {"llava": LlavaProcessor, "llava_next": LlavaNextProcessor}[name](
        image_processor=family.image_processor,
        tokenizer=family.tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=family.chat_template,
    )


@pytest.fixture(scope="session")
def stock(internvl_processor: Callable[..., Any]) -> Callable[[str], Stock]:
    """Stock models, each made once."""
    built: dict[str, Stock] = {}

    def build(name: str) -> Stock:
        if name not in built:
            if name == "demo":
                folder = model_path("demo")
                model, processor = (
                    AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32),
                    AutoProcessor.from_pretrained(folder),
                )
            else:
                family = TINY[name]()
                made = internvl_processor(family) if name == "internvl" else _processor(name, family)
                model, processor = family.model, made
            built[name] = Stock(name, model, processor, vtpbench.wrap(model, processor, preprocessing=ALIKE[name]))
        return built[name]

    return build
