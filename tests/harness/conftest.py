"""What the tests of all families share: pictures, prompts through the harness, and the logits that come out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.batch import PromptBatch
from vtpbench.harness.pruning.decoder_hooks import ForwardTrace, decoder_hooks
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.pruners.base import Pruner

Ask = tuple[str, Sequence[Image.Image]]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


MIXED: list[Ask] = [
    ("What is it?", [picture(40, 30)]),
    ("Nothing to see here.", []),
    ("How do these two differ, and is one of them larger?", [picture(20, 48, 1), picture(44, 26, 2)]),
    ("What?", [picture(40, 30, 3)]),
]
"""One image, none, two of different shape, and one more of a shape that was there."""


def prepare(family: Family, pruner: Pruner, budget: float | None, asked: Sequence[Ask]) -> PromptBatch:
    """Encode, prune and assemble; `budget` is a share of each image's tokens. Keys are the same in any batch."""
    images = [image for _, own in asked for image in own]
    keys = [f"{text}:{n}" for text, own in asked for n in range(len(own))]

    def count(tokens: int) -> int | None:
        return None if budget is None else max(1, round(budget * tokens / 5)) * 5 if tokens % 5 == 0 else round(budget * tokens)

    pipeline = Pipeline(family, pruner, count)
    found = pipeline.select(pipeline.encode(images), keys)
    numbers = iter(range(len(images)))
    return pipeline.assemble([text for text, _ in asked], [[found[next(numbers)] for _ in own] for _, own in asked])


@torch.inference_mode()
def forward(family: Family, batch: PromptBatch) -> tuple[Tensor, ForwardTrace]:
    """Logits of the prefill, `(rows, width, vocabulary)`; columns on the right line up."""
    mask = batch.layout.valid(family.device).long()
    with decoder_hooks(family.decoder, batch) as pruning:
        output = family.model(inputs_embeds=batch.embeds, position_ids=batch.positions, attention_mask=mask, use_cache=True)
    return output.logits, pruning.trace


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Family]:
    """Tiny models, built once."""
    built: dict[Any, Family] = {}

    def build(name: str, **options: Any) -> Family:
        key = (name, tuple(sorted(options.items())))
        if key not in built:
            built[key] = TINY[name](**options)
        return built[key]

    return build


@pytest.fixture(scope="session")
def internvl_processor() -> Callable[..., Any]:
    """Make the processor that a checkpoint of InternVL would come with; `images` is another image processor."""
    from transformers import InternVLProcessor, InternVLVideoProcessor

    def make(family: Any, images: Any = None) -> Any:
        tokenizer = family.tokenizer
        named = {"start_image": "<img>", "end_image": "</img>", "context_image": "<IMG_CONTEXT>", "video": "<video>"}
        for name, token in named.items():
            setattr(tokenizer, f"{name}_token", token)
            setattr(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
        parts = images or family.image_processor, tokenizer, InternVLVideoProcessor()
        return InternVLProcessor(*parts, image_seq_length=family.side**2, chat_template=family.chat_template)

    return make


@contextmanager
def columns_seen(model: Family, layer: int = 0) -> Iterator[list[tuple[int, int]]]:
    """Note rows and columns that enter a decoder layer, in every pass."""
    seen: list[tuple[int, int]] = []

    def note(module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        seen.append((hidden.shape[0], hidden.shape[1]))

    layers: Any = model.decoder.layers
    handle = layers[layer].register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    handle.remove()


@pytest.fixture(scope="session")
def tools() -> SimpleNamespace:
    return SimpleNamespace(picture=picture, prepare=prepare, forward=forward, columns_seen=columns_seen, MIXED=MIXED)
