"""A model family under test, beside the stock model of which it is made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vtpbench.harness.check.subject import ModelBuilder, PrunerOnModel
from vtpbench.harness.models.family import Family
from vtpbench.harness.pruning.pipeline import Pipeline, Prompt
from vtpbench.pruners.registry import build
from vtpbench.pruners.vanilla import Vanilla

STEPS = 4
"""Tokens of an answer that is compared with the stock model's."""
RENUMBER = ("pyramiddrop", "sparsevlm", "vscan")
"""Built-in pruners that renumber positions unless told to keep them."""


@dataclass(frozen=True)
class FamilySubject:
    """A family under test, by a builder of one model of it."""

    build: ModelBuilder

    @cached_property
    def family(self) -> Family:
        """The model on SDPA in float32."""
        return self.build(attention="sdpa", dtype=torch.float32)

    def pruned_by(self, name: str) -> PrunerOnModel:
        """Put a built-in pruner on the model, with positions kept where it can renumber them."""
        keeps = {"positions": "keep"} if self.family.shape.multi_axis_positions and name in RENUMBER else {}
        return PrunerOnModel(build(name, keeps), self.build)

    @cached_property
    def questions(self) -> tuple[Prompt, ...]:
        """One image, another shape of image, two of unequal shapes, none."""
        return PrunerOnModel(Vanilla(), self.build).questions


@torch.inference_mode()
def stock_logits(family: Family, question: Prompt) -> Tensor:
    """Logits of each step of the stock model's answer, `(steps, vocabulary)`."""
    from transformers import GenerationConfig

    inputs = family.stock_inputs(question.text, question.images)
    settings = GenerationConfig(
        max_new_tokens=STEPS, do_sample=False, output_logits=True, return_dict_in_generate=True, pad_token_id=0
    )
    mask = torch.ones_like(inputs["input_ids"])
    output = family.model.generate(**inputs, attention_mask=mask, generation_config=settings)
    return torch.cat(output.logits).float()


def own_logits(family: Family, question: Prompt) -> Tensor:
    """Logits of each step of our answer with all tokens, `(steps, vocabulary)`."""
    steps: list[Tensor] = []
    head = family.model.get_output_embeddings()
    listener = head.register_forward_hook(lambda module, args, output: steps.append(output[:, -1].float()))
    try:
        Pipeline(family, Vanilla()).run([question], STEPS)
    finally:
        listener.remove()
    return torch.cat(steps)
