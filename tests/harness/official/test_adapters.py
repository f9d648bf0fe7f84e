"""What a model says reaches the scorer as lmms-eval's own adapter of its family hands it over, and as long as that lets it be."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from pruner_options import ONEVISION, QWEN

from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.run.adapter import Adapter
from vtpbench.harness.run.answering import Answerer
from vtpbench.harness.suite.generation import asked_by, greedy
from vtpbench.pruners.registry import build

SAYS = ("It is on the left axis.\n\nB", " B \n", "B", "\n\nB", "", "USER: no\nASSISTANT: yes\n\nB.\n")
TASKS: dict[str, dict[str, Any]] = {
    "names nothing": {},
    "names a length": {"generation_kwargs": {"max_new_tokens": 16, "do_sample": False}},
    "names a text": {"generation_kwargs": {"until": "\n", "temperature": 0}},
    "names several": {"generation_kwargs": {"until": ["ASSISTANT:", "\n\n", ""], "max_new_tokens": 1024}},
    "names a full stop": {"generation_kwargs": {"until": [".", "\n\n"], "num_beams": 1}},
    "names another delimiter": {"fewshot_delimiter": "\n", "generation_kwargs": {"top_p": None}},
    "names arguments for a model": {
        "generation_kwargs": {"max_new_tokens": 7},
        "model_specific_generation_kwargs": {"default": {"max_new_tokens": 9}, "other": {"max_new_tokens": 1}},
    },
}
PICTURE = Image.new("RGB", (20, 20), "red")


class Reciter:
    """Stands where a model of transformers stands: gives the tokens of one text, and notes how many were allowed."""

    def __init__(self, tokenizer: Any, says: str, echoes: bool) -> None:
        self.dtype, self.config, self.allowed = torch.float32, None, 0
        said = tokenizer(says, add_special_tokens=False)["input_ids"]
        self._tokens, self._echoes = torch.tensor([[*said, tokenizer.eos_token_id]]), echoes

    def generate(self, *ids: Any, max_new_tokens: int, do_sample: bool, **inputs: Any) -> Any:
        assert not do_sample
        self.allowed = max_new_tokens
        return torch.cat([inputs["input_ids"], self._tokens], dim=1) if self._echoes else self._tokens


def processor_of(family: Any, name: str) -> Any:
    """Make the processor that a checkpoint of the family would come with."""
    from transformers import (
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

    if name in QWEN:
        made = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor, "qwen3_vl": Qwen3VLProcessor}[name]
        videos = Qwen3VLVideoProcessor() if name == "qwen3_vl" else Qwen2VLVideoProcessor()
        return made(family.image_processor, family.tokenizer, videos, chat_template=family.chat_template)
    if name == ONEVISION:
        parts = {"tokenizer": family.tokenizer, "video_processor": LlavaOnevisionVideoProcessor()}
        facts = {"num_image_tokens": 16, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_3"}
        return LlavaOnevisionProcessor(family.image_processor, **parts, chat_template=family.chat_template, **facts)
    kind = LlavaProcessor if name == "llava" else LlavaNextProcessor
    own = {"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return kind(image_processor=family.image_processor, tokenizer=family.tokenizer, chat_template=family.chat_template, **own)


def adapter_of(module: str, family: Any, processor: Any, says: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make an adapter of lmms-eval, all of it but for the loading of a checkpoint and the forward passes."""
    stub = ModuleType("decord")  # reads videos, which nothing here shows
    monkeypatch.setitem(sys.modules, "decord", stub)
    stub.VideoReader = stub.cpu = None  # type: ignore[attr-defined]
    form, kind = ADAPTERS[module]
    adapter = getattr(importlib.import_module(f"lmms_eval.models.{form}.{module}"), kind)
    own = object.__new__(adapter)
    super(adapter, own).__init__()
    family.tokenizer.chat_template = None if module == "llava" else STRINGS
    own._tokenizer, own._device, own.batch_size_per_gpu, own.use_cache = family.tokenizer, torch.device("cpu"), 1, True
    own.accelerator = SimpleNamespace(is_main_process=False, unwrap_model=lambda model: model)
    own._model = Reciter(family.tokenizer, says, echoes=module != "llava")
    own._config, own.conv_template, own.chat_template = SimpleNamespace(image_aspect_ratio="pad"), "vicuna_v1", None
    own._image_processor = family.image_processor if module == "llava" else processor
    if module == "internvl_hf":
        own.processor, own.min_patches, own.max_patches, own.num_frames, own.fps = own._image_processor, 1, 12, 32, None
        own._rank, own._world_size = 0, 1
    if module in QWEN:
        own.processor, own.device_map = own._image_processor, "cpu"
        own.min_pixels, own.max_pixels, own.max_num_frames = 8 * 8, 64 * 64, 1
        own.system_prompt, own.reasoning_prompt, own.interleave_visuals = "Help.", None, False
        own.fps, own.total_pixels, own.enable_thinking = None, None, None
    if module == "llava":
        monkeypatch.setattr(f"{adapter.__module__}.process_images", lambda images, *_: torch.zeros(len(images), 3, 4, 4))
    return own


ADAPTERS = {
    "llava_hf": ("simple", "LlavaHf"),
    "llava": ("simple", "Llava"),
    "qwen2_vl": ("simple", "Qwen2_VL"),
    "qwen2_5_vl": ("simple", "Qwen2_5_VL"),
    "qwen3_vl": ("simple", "Qwen3_VL"),
    "internvl_hf": ("chat", "InternVLHf"),
}
STRINGS = "{% for m in messages %}{{ m.content }}{% endfor %}"


def requests(task: dict[str, Any], form: str = "simple") -> list[Any]:
    """Ask one question as lmms-eval does, its own configuration of the task at work; in its chat form with messages."""
    from lmms_eval.api.task import TaskConfig

    config = TaskConfig(task="mine", output_type="generate_until", **task)
    if config.model_specific_generation_kwargs:  # what a task object does, for a model that is not named
        config.generation_kwargs.update(config.model_specific_generation_kwargs["default"])
    arguments = dict(config.generation_kwargs)
    said = [{"role": "user", "content": [{"type": "image", "url": PICTURE}, {"type": "text", "text": "Which?"}]}]
    asked = (lambda doc: said, arguments) if form == "chat" else (arguments, lambda doc: [PICTURE])
    return [SimpleNamespace(args=("Which?", *asked, 0, "mine", "test"))]


def said_here(family: Any, says: str, task: dict[str, Any], planned: bool) -> tuple[str, int]:
    """What vtpbench hands over of a text, and how long it may be: by the arguments of the plan, or lmms-eval's own."""
    allowed = []

    class Speaker(Pipeline):
        def generate(self, batch: Any, max_new_tokens: int) -> Any:
            allowed.append(max_new_tokens)
            tokens = [self.model.tokenizer(says)["input_ids"]]
            return self.model.tokenizer.batch_decode(tokens, skip_special_tokens=True), super().generate(batch, 1)[1]

    generation = greedy(asked_by(task), "mine", family.shape.family) if planned else None
    adapter = Adapter(Answerer(Speaker(family, build("vanilla", {})), 1), generation, "mine")
    adapter.task_dict = {"mine": {"test": {0: None}}}
    (text,) = adapter.generate_until(requests(task))
    return text, allowed[0]


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize(
    "pair",
    [
        *("llava_hf of llava", "llava of llava", "llava_hf of llava_next", "llava of llava_next"),
        f"llava_hf of {ONEVISION}",
        *(f"{name} of {name}" for name in QWEN),
        "internvl_hf of internvl",
    ],
)
def test_an_answer_reaches_the_scorer_as_lmms_evals_adapter_of_the_family_has_it(
    pair, task, says, monkeypatch, internvl_processor
) -> None:
    module, _, name = pair.partition(" of ")
    family = MODELS.get(name) or MODELS.setdefault(name, TINY[name]())
    processor = internvl_processor(family) if name == "internvl" else processor_of(family, name)
    adapter = adapter_of(module, family, processor, says, monkeypatch)
    adapter.task_dict = {"mine": {"test": {0: None}}}
    (theirs,) = adapter.generate_until(requests(task, ADAPTERS[module][0]))
    theirs = getattr(theirs, "text", theirs)
    for planned in (True, False):
        assert said_here(family, says, task, planned) == (theirs, adapter._model.allowed)


MODELS: dict[str, Any] = {}
