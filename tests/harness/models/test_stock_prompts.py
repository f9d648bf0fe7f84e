"""Prompts with several images, and without any, against the unmodified transformers models: the same logits and text."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.pruners.registry import build

QUESTION = "How do these two differ?"


def stock_llava_next(family: Any, images: list[Any]) -> dict[str, Any]:
    """Give the stock model the features of its own tower and projector: 5 tiles an image, laid out by rows of the picture."""
    if "mm_encoder_outputs" not in inspect.signature(family.model.forward).parameters:
        pytest.skip("this version of transformers takes no features")
    rows = []
    for image in images:
        tiles = family.image_processor(image, image_grid_pinpoints=[[32, 32]], return_tensors="pt")["pixel_values"][0]
        with torch.inference_mode():
            states = family.model.model.vision_tower(tiles, output_hidden_states=True).hidden_states[-2][:, 1:]
            features = family.model.model.multi_modal_projector(states)
        joined = features[1:].reshape(2, 2, 4, 4, -1).transpose(1, 2).reshape(64, -1)
        rows.append(torch.cat([features[0], joined]))
    output = BaseModelOutputWithPooling(pooler_output=rows)
    return {"input_ids": family.expanded_ids(QUESTION, [80] * len(images)), "mm_encoder_outputs": {"image": output}}


def stock_inputs(name: str, family: Any, images: list[Any]) -> dict[str, Any]:
    """What the stock model takes; LLaVA-NeXT's protocol without newlines is our own, so that it is given features."""
    return stock_llava_next(family, images) if name == "llava_next" else family.stock_inputs(QUESTION, images)


@pytest.mark.parametrize("pruner", ["vanilla", "random", "fastv"])
@pytest.mark.parametrize("name", TINY)
def test_keeping_all_of_two_images_of_unequal_shape(name: str, pruner: str, tiny: Any, tools: Any) -> None:
    family, images = tiny(name), [tools.picture(20, 48, 1), tools.picture(44, 26, 2)]
    inputs = stock_inputs(name, family, images)
    with torch.inference_mode():
        expected = family.model(**inputs, attention_mask=torch.ones_like(inputs["input_ids"])).logits
    batch = tools.prepare(family, build(pruner, {}), 1.0, [(QUESTION, images)])
    logits, trace = tools.forward(family, batch)
    # The towers see the two pictures in one call there and, where shapes differ, in two calls here: not always bit-equal.
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert len(trace.per_layer) == 2


@pytest.mark.parametrize("name", TINY)
def test_a_prompt_without_an_image(name: str, tiny: Any, tools: Any) -> None:
    family = tiny(name)
    ids = family.expanded_ids(QUESTION, [])
    with torch.inference_mode():
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        expected = family.model(**inputs).logits
        stock = family.model.generate(**inputs, max_new_tokens=8, do_sample=False, pad_token_id=3)
    for pruner in ("vanilla", "random", "fastv", "text-only"):
        batch = tools.prepare(family, build(pruner, {}), 0.5, [(QUESTION, [])])
        logits, _ = tools.forward(family, batch)
        assert torch.equal(logits, expected)
        texts, _ = Pipeline(family).generate(batch, 8)
        assert texts == family.tokenizer.batch_decode(stock[:, ids.shape[1] :], skip_special_tokens=True)
