"""Prune inside `generate` of a model that somebody else has loaded: hooks alone, removed afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from vtpbench.harness.api.arguments import make_pipeline
from vtpbench.harness.api.content import content_keys
from vtpbench.harness.api.stock_prompts import StockPrompts, read_prompts
from vtpbench.harness.api.trace import SelectionTrace
from vtpbench.harness.models.stock import hooked_family
from vtpbench.harness.pruning.batch import ImageTokens, PromptBatch
from vtpbench.harness.pruning.cache_argument import cache_in
from vtpbench.harness.pruning.decoder_hooks import DecoderPruning, layer_hooks
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.pruners.base import Pruner
from vtpbench.pruners.errors import Unsupported, UserError

Call = tuple[tuple[Any, ...], dict[str, Any]]
WHOLE = "give `generate` the whole conversation"
INSTEAD = "use `vtpbench.wrap(model, processor).pruned(...)`, which prunes there"


@contextmanager
def pruned(
    model: Any,
    pruner: str | Pruner,
    *,
    budget: int | str | None = None,
    seed: int | None = None,
    processor: Any = None,
    text_tower: str | Path | None = None,
    **options: Any,
) -> Iterator[SelectionTrace]:
    """Prune what `model.generate(**inputs)`, or `model(**inputs)`, is given inside a `with` block.

        with vtpbench.pruned(model, "fastv", budget=64) as trace:
            ids = model.generate(**processor(images=image, text=prompt, return_tensors="pt"), max_new_tokens=32)

    The model stays as it is: hooks act on what enters the language model, and are removed at the end of the block, also after
    an exception. Tokens keep the positions that they have in `vtpbench.load(...)`, merged rows are projected, and the answers
    are the same, in float32, as those of `Model.answer` for the same prompt and pixels. Ids that `generate` returns hold the
    whole prompt. In each prefill the vision tower runs twice, once for the model and once for the pruner: use `load` or `wrap`
    to measure time. Text around images stays in the prompt also where no token of an image is left.

    Parameters
    ----------
    model : of a class of transformers that a family knows: LLaVA, LLaVA-NeXT, LLaVA-OneVision, Qwen2-VL, Qwen2.5-VL, Qwen3-VL,
        InternVL, plugin's
    pruner, budget, seed, options : as in `Model.pruned`
    processor : needed by pruners alone that read the prompts (`TokenView.questions`)
    text_tower : as in `load`

    Yields
    ------
    SelectionTrace : grows with every call of `generate`

    Raises
    ------
    UserError : an unsupported model; a call that cannot be pruned rightly: beam search, several answers to a prompt, an
        assistant model, a cache that is static, offloaded, none (`use_cache=False`) or goes on from an earlier call, gradients;
        a selection of the pruner that is wrong, in the next call or at the end of the block
    Infeasible : the pruner cannot reach the budget
    Unsupported : it cannot act on this model, or acts inside the vision tower or on the size of images

    """
    family = hooked_family(model, processor, None if text_tower is None else str(text_tower))
    refuse_hooked(model)
    state = GenerateHooks(make_pipeline(family, pruner, budget, seed, options))
    with state.registered():
        yield state.trace
        state.finish()


def refuse_hooked(model: Any) -> None:
    """Raise `UserError` for a model that a `pruned` block acts on already."""
    hooks = model.model._forward_pre_hooks.values()
    if any(isinstance(getattr(hook, "__self__", None), GenerateHooks) for hook in hooks):
        raise UserError("a `pruned` block acts on this model already; leave it first")


@dataclass(frozen=True)
class TowerInput:
    """What the stock model gave its vision tower; `sizes` in patches where it says them."""

    pixels: Tensor
    sizes: Tensor | None


class GenerateHooks:
    """One `pruned` block: notes what comes by, and replaces what enters the language model.

    `generate` may run the vision tower before it calls the model, and does not hand the pixels on then. So they are noted where
    they enter the tower, prompts where the model is called, and both are used where the language model begins.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.trace = pipeline, SelectionTrace()
        self.current: DecoderPruning | None = None
        self._tower: TowerInput | None = None
        self._call: dict[str, Any] = {}
        """What the model was called with last."""
        self._asked: Sequence[ImageTokens] | None = None
        """Images of a prefill that is under way."""
        self._own_pass = False
        self._cache: Any = None
        self._pruned_caches: WeakSet[Any] = WeakSet()

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Act on the model inside the context."""
        family = self.pipeline.model
        whole, decoder = family.model.model, family.decoder
        with ExitStack() as hooks:
            before = (family.vision_tower, self.before_tower), (whole, self.before_model), (decoder, self.before_decoder)
            for module, hook in before:
                hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            hooks.callback(decoder.register_forward_hook(self.after_decoder, with_kwargs=True).remove)
            hooks.enter_context(layer_hooks(decoder, lambda: self.current))
            yield

    def finish(self) -> None:
        """Let go of a batch; raises `UserError` where a selection for it was wrong."""
        done, self.current = self.current, None
        if done is not None:
            done.raise_if_invalid()

    def before_tower(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the pixels."""
        del module
        if not self._own_pass:
            pixels: Tensor = args[0] if args else kwargs["pixel_values"]
            self._tower = TowerInput(pixels, kwargs.get("grid_thw"))

    def before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the prompts."""
        del module
        self._call = {"input_ids": args[0], **kwargs} if args else kwargs

    def before_decoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Give the language model the pruned prompts, and in later steps their mask and positions."""
        del module
        cache = cache_in(kwargs)
        if cache is not None and cache.get_seq_length() > 0:
            return self._step(cache, args, kwargs)
        self.finish()
        self._asked = None
        tower, self._tower = self._tower, None
        prompts = read_prompts(self._call, self.pipeline.model.model.config)
        if prompts is None and tower is not None:
            raise UserError("prompts that are embedded already cannot be pruned; give input_ids")
        if prompts is None or not prompts.has_images:
            return None
        _require_prunable(cache, kwargs)
        if tower is None:
            raise UserError("the prompts have images that were encoded elsewhere; give `generate` pixel_values, inside the block")
        batch, self._asked = self._prune(prompts, tower)
        self.current = DecoderPruning(self.pipeline.model.decoder, batch)
        mask = batch.layout.valid(batch.embeds.device).long()
        changed = {"inputs_embeds": batch.embeds, "attention_mask": mask, "position_ids": batch.positions}
        return args, {**kwargs, **changed, **dict.fromkeys(self.pipeline.model.vision_arguments)}

    def _prune(self, prompts: StockPrompts, tower: TowerInput) -> tuple[PromptBatch, list[ImageTokens]]:
        """Make the pruned prompts; gives them, and what is left of all images in their order."""
        pipeline, family = self.pipeline, self.pipeline.model
        sizes = prompts.image_sizes if tower.sizes is None else tower.sizes
        groups = family.group_pixels(tower.pixels, sizes, prompts.per_image())
        for schedule in map(pipeline.schedule, groups):
            if schedule.tower_cuts or schedule.target_grid:
                what = "takes tokens out inside the vision tower" if schedule.tower_cuts else "makes images smaller"
                raise Unsupported(f"{schedule.name} {what}, where the stock model has run already; {INSTEAD}")
        counts = {member: group.tokens for group in groups for member in group.members}
        rows = prompts.named([counts[member] for member in sorted(counts)])
        reads = pipeline.pruner.reads_question and family.tokenizer is not None
        questions = prompts.questions(rows, family) if reads else ()
        self._own_pass = True
        try:
            encoded = pipeline.encode_groups(groups)
        finally:
            self._own_pass = False
        left = pipeline.select(encoded, content_keys(family, groups), questions)
        numbers = iter(sorted(left))
        images = [[left[next(numbers)] for token in row if token == family.image_id] for row in rows]
        return pipeline.assemble_ids(rows, images), [left[number] for number in sorted(left)]

    def after_decoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Note after a prefill what stayed, and which cache holds it."""
        del module, args
        if self._asked is None or self.current is None:
            return
        asked, self._asked = self._asked, None
        self._cache = cache_in(output) if isinstance(output, Mapping) else None
        if self._cache is not None:
            self._pruned_caches.add(self._cache)
        layers = self.pipeline.model.shape.decoder_layers
        self.trace.add(asked, self.current.batch.images, self.current.trace, layers)

    def _step(self, cache: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Give a decoding step the mask and positions of the sequence that is cached."""
        if cache not in self._pruned_caches:
            if self._tower is not None:
                raise UserError(f"an image behind a cache that is not empty cannot be pruned; {WHOLE}")
            return None
        embeds = kwargs["inputs_embeds"]
        if cache is not self._cache or embeds.shape[1] != 1 or self.current is None:
            raise UserError(
                "a pruned cache goes on one token at a time, with the prompts that it was made of: assistant models, prompt "
                f"lookup, chunked prefill and further turns cannot be pruned; {WHOLE}"
            )
        batch = self.current.batch
        new: int = cache.get_seq_length() + 1 - batch.layout.width
        mask = nn.functional.pad(batch.layout.valid(embeds.device), (0, new), value=True).long()
        return args, {**kwargs, "attention_mask": mask, "position_ids": batch.positions[..., -1:] + new}


def _require_prunable(cache: Any, kwargs: dict[str, Any]) -> None:
    """Raise `UserError` for a call whose answers would be wrong."""
    from transformers import DynamicCache

    if torch.is_grad_enabled():
        raise UserError("pruning has no gradients; call the model inside `with torch.no_grad():`")
    if kwargs.get("use_cache") is False:
        raise UserError("use_cache=False would choose anew for every token; leave it out")
    if cache is not None and (type(cache) is not DynamicCache or cache.offloading):
        raise UserError(f"a {type(cache).__name__} cannot be pruned if it is static, offloaded or quantized; leave the cache out")
