"""A vision language model to ask questions, whole or pruned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, get_args

import torch
from PIL.Image import Image

from vtpbench.harness.api.arguments import make_pipeline
from vtpbench.harness.api.content import content_keys
from vtpbench.harness.api.generate_hooks import refuse_hooked
from vtpbench.harness.api.trace import SelectionTrace
from vtpbench.harness.host.device import open_device
from vtpbench.harness.host.images import read_image
from vtpbench.harness.models.family import Family
from vtpbench.harness.models.load import describe_model, open_model, read_template
from vtpbench.harness.models.stock import wrapped_family
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.suite.options import model_path
from vtpbench.harness.suite.specs import Attention
from vtpbench.pruners.base import Pruner
from vtpbench.pruners.errors import UserError, did_you_mean

AnImage: TypeAlias = "Image | str | Path"
"""A PIL image as it is, or the path of a file."""
Images: TypeAlias = "AnImage | Sequence[AnImage] | None"
"""The images of one question: one, several in their order, or none."""


class Model:
    """A model as `load` and `wrap` give it: it answers greedily, prompts and images are made as in benchmarks.

    Attributes
    ----------
    name : as it was asked for, or the class of the model that was wrapped

    """

    def __init__(self, family: Family, name: str) -> None:
        self.name = name
        self._family = family
        self._pipeline = self._whole = Pipeline(family)
        self._trace: SelectionTrace | None = None

    def __repr__(self) -> str:
        tokens = "" if self.vision_tokens is None else f", {self.vision_tokens} vision tokens an image"
        return f"<vtpbench.Model {self.name}: {self._family.shape.family} on {self._family.device}{tokens}>"

    @property
    def vision_tokens(self) -> int | None:
        """Vision tokens of an image; None where that depends on its size."""
        every = self._family.fixed_geometry
        return None if every is None else every.tokens

    @contextmanager
    def pruned(
        self, pruner: str | Pruner, *, budget: int | str | None = None, seed: int | None = None, **options: Any
    ) -> Iterator[SelectionTrace]:
        """Prune what is asked inside a `with` block, and give a trace of what stays.

        Parameters
        ----------
        pruner : a name (`vtpbench list pruners`), `"./mine.py:Mine"`, which runs the code of that file, or an object
        budget : average vision tokens of an image that enter a decoder layer: a count, or a share such as `"11.1%"`; more
            than an image of varying size has means all; only vanilla needs none
        seed : of pruners that draw at random; 0 unless given
        options : of a pruner that is named, such as `layer=3`

        Raises
        ------
        UserError : unknown pruner, option or budget, another `pruned` block around this one
        Infeasible : the pruner cannot reach the budget; where images differ, as soon as one is asked about
        Unsupported : it cannot act on this model

        """
        if self._trace is not None:
            raise UserError("one `pruned` block inside another: two pruners at once mean nothing; leave the outer block first")
        self._pipeline = make_pipeline(self._family, pruner, budget, seed, options)
        self._trace = SelectionTrace()
        try:
            yield self._trace
        finally:
            self._pipeline, self._trace = self._whole, None

    def answer(self, image: Images, question: str, *, max_new_tokens: int = 128) -> str:
        """Ask about an image, several images, or none; see `answers`."""
        return self.answers([image], [question], max_new_tokens=max_new_tokens)[0]

    def answers(self, images: Sequence[Images], questions: Sequence[str], *, max_new_tokens: int = 128) -> list[str]:
        """Ask several questions in one batch; in float32 each is answered as alone.

        Parameters
        ----------
        images : for each question its image, list of images, or None; images come before the question in the prompt
        questions : texts, without markers for images
        max_new_tokens : most tokens of an answer

        Returns
        -------
        list of str : the answers, without blanks around them

        Raises
        ------
        UserError : an image that cannot be read, unequal lengths, a selection of the pruner that is wrong
        Infeasible, Unsupported : as `pruned`

        """
        refuse_hooked(self._family.model)
        if isinstance(questions, str) or len(images) != len(questions):
            raise UserError(f"{len(images)} entries of images for {len(questions)} questions; give one entry for each question")
        if not questions:
            return []
        with torch.inference_mode():
            return self._answers([_opened(entry) for entry in images], questions, max_new_tokens)

    def _answers(self, images: Sequence[Sequence[Image]], questions: Sequence[str], max_new_tokens: int) -> list[str]:
        family, pipeline = self._family, self._pipeline
        flat = [image for own in images for image in own]
        groups = family.group(flat) if flat else ()
        asked = [question for question, own in zip(questions, images, strict=True) for _ in own]
        left = pipeline.select(pipeline.encode_groups(groups), content_keys(family, groups), asked)
        numbers = iter(range(len(flat)))
        rows = [[left[next(numbers)] for _ in own] for own in images]
        batch = pipeline.assemble(questions, rows)
        texts, seen = pipeline.generate(batch, max_new_tokens)
        if self._trace is not None:
            self._trace.add([image for row in rows for image in row], batch.images, seen, family.shape.decoder_layers)
        return [text.strip() for text in texts]


def load(
    model: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    preprocessing: str | None = None,
    attention: str = "sdpa",
    prompt: str | None = None,
    revision: str | None = None,
    text_tower: str | Path | None = None,
) -> Model:
    """Load a model.

    Parameters
    ----------
    model : hub id, folder of a checkpoint (Hugging Face form or the original LLaVA's), or `"demo"`, the embedded model
    dtype : float32, bfloat16 or float16; by default what the checkpoint names
    device : as torch names it; by default the first GPU, else the CPU
    preprocessing : how images reach the tower, one of the model's ways (`pad`, `crop`; `fixed672`, `native`; `dynamic`)
    attention : kernel of the language model: sdpa, eager, flash_attention_2
    prompt : `"vicuna_v1"`, or the path of a Jinja chat template; None = the checkpoint's
    revision : branch, tag or commit on the hub
    text_tower : CLIP model that the vision tower comes from, for pruners that compare tokens with the question by it
        (`cdpruner`, `trim`): a hub id or a folder; by default the one of LLaVA's, where it is on this machine

    Raises
    ------
    UserError : no such checkpoint, an unsupported architecture, a device that is not there

    """
    place = open_device(None if device is None else str(device))
    form = None if dtype is None else str(dtype).removeprefix("torch.")
    if form not in (None, "float32", "bfloat16", "float16"):
        raise UserError(f"dtype {dtype}: give float32, bfloat16 or float16")
    if attention not in get_args(Attention):
        raise UserError(f"attention {attention}: {did_you_mean(attention, get_args(Attention))}")
    name = str(model)
    described = describe_model(
        name,
        model_path(name),
        revision=revision,
        dtype=form,
        attention=attention,
        preprocessing=preprocessing,
        prompt=prompt,
        text_tower=None if text_tower is None else str(text_tower),
    )
    return Model(open_model(described, place), name)


def wrap(
    model: Any,
    processor: Any,
    *,
    preprocessing: str | None = None,
    prompt: str | None = None,
    text_tower: str | Path | None = None,
) -> Model:
    """Ask a model of transformers that you have loaded, as benchmarks would; nothing of it is changed.

    Its own settings for `generate` (sampling, penalties) do not count, its weights, device, number format and attention kernel
    do. To prune inside your own calls of `generate`, see `vtpbench.pruned`.

    Parameters
    ----------
    model : of a class of transformers that a family knows: LLaVA, LLaVA-NeXT, Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL, plugin's
    processor : its `AutoProcessor`
    preprocessing : how images reach the tower; by default `pad` for LLaVA and `fixed672` for LLaVA-NeXT, where the processor
        itself does `crop` and `native`
    prompt : `"vicuna_v1"`, or the path of a Jinja chat template; None = the processor's
    text_tower : as in `load`

    Raises
    ------
    UserError : another class, a model on device `meta` or on several devices, or one that is being trained

    """
    name = type(model).__name__
    template = None if prompt is None else read_template(prompt, name)
    tower = None if text_tower is None else str(text_tower)
    return Model(wrapped_family(model, processor, preprocessing, template, tower), name)


def _opened(images: Images) -> list[Image]:
    """Open the images of one question."""
    if images is None:
        return []
    if isinstance(images, (str, Path, Image)):
        images = [images]
    if not isinstance(images, Sequence):
        raise UserError(f"{type(images).__name__} is no image; give a PIL image, a path, or a list of them")
    return [_open(image) for image in images]


def _open(image: object) -> Image:
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if not isinstance(image, Image):
        raise UserError(f"{type(image).__name__} is no image; give a PIL image, a path, or a list of them")
    return image
