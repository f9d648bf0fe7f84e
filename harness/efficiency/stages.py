"""One batch of prompts through a model, stage by stage, on the path that benchmarks take.

Nothing is replaced: the four steps of a `Pipeline` are called one after the other, and hooks on the vision tower, the decoder
and the layers with a cut say where one stage ends and the next begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from PIL.Image import Image
from torch import Tensor

from vtpbench.harness.efficiency.activity import watch
from vtpbench.harness.efficiency.operations import WatchedOperations
from vtpbench.harness.efficiency.timers import Lap, start_timer
from vtpbench.harness.models.family import Family
from vtpbench.harness.pruning.batch import ImageTokens, PromptBatch, VisionTokens
from vtpbench.harness.pruning.cache_argument import cache_in
from vtpbench.harness.pruning.decoder_hooks import ForwardTrace
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.records.cell import tokens_for
from vtpbench.harness.records.efficiency import NOTHING, StageWork
from vtpbench.harness.records.record import BudgetInfo, Observed
from vtpbench.pruners.base import Grid, Pruner

Mark = Callable[[Literal["preprocess", "vision", "pruner", "projector", "prefill", "decode"]], None]
"""Say that what was done since the previous mark was this stage."""


@dataclass(frozen=True)
class Prompts:
    """A batch: each picture with the same question; `new_tokens` are generated, the first by the prefill."""

    images: Sequence[Image]
    question: str
    new_tokens: int


@dataclass(frozen=True)
class PrunerAtBudget:
    """A pruner at a budget on a model; with `graphs` what comes again is replayed, whatever its size."""

    family: Family
    pruner: Pruner
    budget: BudgetInfo
    graphs: bool = False

    def tokens(self, n: int) -> int | None:
        """Budget for an image of `n` tokens; None = no budget."""
        return None if self.budget == BudgetInfo() else tokens_for(self.budget, n)

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that answers with this pruner at this budget."""
        return Pipeline(self.family, self.pruner, self.tokens, graphs=self.graphs)


@dataclass(frozen=True)
class Observation:
    """What a run showed beside its time.

    Attributes
    ----------
    observed : vision tokens, counted in the forward pass
    grid : how the tokens lay that the tower made
    tower : tokens of a tile that entered the MLP of each layer of the tower; empty where it did not run
    text : text tokens of the prompt
    kv_bytes : of the key-value cache after the prefill, from its tensors
    masked : decoder layers whose prefill got an explicit mask
    peak_bytes : most memory that the device held at once; None where it does not say
    work : what each stage gave the device to do

    """

    observed: Observed
    grid: Grid
    tower: tuple[int, ...]
    text: int
    kv_bytes: int
    masked: int
    peak_bytes: int | None
    work: Mapping[str, StageWork]

    def at_best(self, other: Observation) -> Observation:
        """Keep the quicker of two looks at each stage: what else a machine does only adds to a time."""
        looks = ((self.work[stage], other.work[stage]) for stage in self.work)
        quickest = (min(pair, key=lambda work: work.device_ms) for pair in looks)
        return replace(other, work=dict(zip(self.work, quickest, strict=True)))


def run(subject: PrunerAtBudget, prompts: Prompts, mark: Mark) -> tuple[list[ImageTokens], PromptBatch, ForwardTrace]:
    """Encode, prune, assemble and generate; gives what was left of each image, the batch, and what the decoder showed.

    `pruner` is what follows the tower up to the projector, evidence and choice, what the layers with a cut do before they
    run, and inside the tower what precedes the MLP of a layer that tokens leave; `projector` includes tokenizing and
    embedding the text; `prefill` lasts until the logits of the first token are there. Where the images of a batch go through
    the tower in several passes, what happens between these counts as `vision`. Of what is replayed nothing is seen inside:
    evidence and cuts are then part of `vision` and `prefill`, and `pruner` is the choice before the language model alone.
    """
    family, pipeline, count = subject.family, subject.pipeline, len(prompts.images)
    asked = [prompts.question] * count
    with family.captured_passes.applied(subject.graphs, any_size=True):
        encoded = _encode_replayed(pipeline, prompts, mark) if subject.graphs else _encode(subject, prompts, mark)
        left = pipeline.select(encoded, [str(n) for n in range(count)], asked)
        mark("pruner")
        batch = pipeline.assemble(asked, [[left[n]] for n in range(count)])
        mark("projector")
        cut = set() if subject.graphs else {cut.at for image in batch.images for cut in image.later_cuts}
        with _marked_cuts(family, cut, mark):
            begun = pipeline.prefill(batch)
        mark("prefill")
        _, trace = pipeline.decode(begun, prompts.new_tokens)
        mark("decode" if prompts.new_tokens > 1 else "prefill")
    return [left[n] for n in range(count)], batch, trace


def _encode(subject: PrunerAtBudget, prompts: Prompts, mark: Mark) -> list[VisionTokens]:
    with _marked_tower(subject, mark):
        return subject.pipeline.encode(prompts.images)


def _encode_replayed(pipeline: Pipeline, prompts: Prompts, mark: Mark) -> list[VisionTokens]:
    groups = pipeline.model.group(prompts.images)
    mark("preprocess")
    encoded = pipeline.encode_groups(groups)
    mark("vision")
    return encoded


def timed(subject: PrunerAtBudget, prompts: Prompts) -> tuple[Lap, ...]:
    """Run once against the clock."""
    timer = start_timer(subject.family.device)
    run(subject, prompts, timer.mark)
    return timer.laps()


def observe(subject: PrunerAtBudget, prompts: Prompts) -> Observation:
    """Run once and look; raises `Infeasible` or `Unsupported` where the pruner cannot do what is asked."""
    family, device = subject.family, subject.family.device
    look, watched = _PrefillObserver(), WatchedOperations()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with ExitStack() as hooks:
        decoder: Any = family.decoder
        hooks.callback(decoder.register_forward_hook(look.after_decoder).remove)
        for layer in decoder.layers:  # behind the cuts, which change what the layer gets
            hooks.callback(layer.self_attn.register_forward_pre_hook(look.before_attention, with_kwargs=True).remove)
        hooks.enter_context(watched)
        images, batch, trace = run(subject, prompts, watched.mark)
    layout = batch.layout
    return Observation(
        observed=_observed(images, trace, family.shape.decoder_layers),
        grid=images[0].grid,
        tower=images[0].tower,
        text=sum(part.length for part in layout.rows[0] if part.image is None),
        kv_bytes=look.kv_bytes,
        masked=look.masked,
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        work=_on_gpu(subject, prompts, watched.by_stage) if device.type == "cuda" else watched.by_stage,
    )


def observe_replayed(subject: PrunerAtBudget, prompts: Prompts, launched: Observation) -> Observation:
    """Run once and look at what the device does; all else is as it was where the same was `launched`.

    How much memory a row needs is not known: graphs of all rows lie there.
    """
    return replace(launched, peak_bytes=None, work=_on_gpu(subject, prompts, launched.work))


def _on_gpu(subject: PrunerAtBudget, prompts: Prompts, counted: Mapping[str, StageWork]) -> dict[str, StageWork]:
    """Replace the host's view of times and launches by the device's own, of a run of its own."""
    seen = watch(lambda mark: run(subject, prompts, mark))
    return {
        stage: StageWork(
            device_ms=seen[stage].device_ms, launches=seen[stage].launches, moved_bytes=counted.get(stage, NOTHING).moved_bytes
        )
        for stage in seen
    }


@contextmanager
def _marked_tower(subject: PrunerAtBudget, mark: Mark) -> Iterator[None]:
    """Mark the end of the preprocessing and of each pass, and inside the tower what is done where tokens leave."""
    passes = 0
    arrived = 0

    def before(*_: Any) -> None:
        nonlocal passes
        mark("vision" if passes else "preprocess")
        passes += 1

    def before_norm(module: Any, args: tuple[Tensor]) -> None:
        nonlocal arrived
        arrived = args[0].shape[1]
        mark("vision")

    def after_norm(module: Any, args: Any, output: Tensor) -> None:
        if output.shape[1] < arrived:
            mark("pruner")

    family = subject.family
    tower = family.model.get_encoder(modality="image")
    layers: Any = family.tower_layers if type(subject.pruner).tower_cuts is not Pruner.tower_cuts else ()
    with ExitStack() as hooks:
        hooks.callback(tower.register_forward_pre_hook(before).remove)
        hooks.callback(tower.register_forward_hook(lambda *_: mark("vision")).remove)
        for layer in layers:  # registered before, so called before, the cut
            hooks.callback(layer.layer_norm2.register_forward_pre_hook(before_norm).remove)
            hooks.callback(layer.layer_norm2.register_forward_hook(after_norm).remove)
        yield
    if not passes:
        mark("preprocess")


@contextmanager
def _marked_cuts(family: Family, cut: set[int], mark: Mark) -> Iterator[None]:
    """Mark in the prefill what is done before layers with a `cut`."""
    decoder: Any = family.decoder
    with ExitStack() as hooks:
        for number in cut:
            layer = decoder.layers[number]
            before, after = layer.register_forward_pre_hook, layer.input_layernorm.register_forward_pre_hook
            hooks.callback(before(lambda *_: mark("prefill")).remove)  # registered before, so called before, the cut
            hooks.callback(after(lambda *_: mark("pruner")).remove)
        yield


@dataclass
class _PrefillObserver:
    """Filled by hooks while the prefill runs."""

    kv_bytes: int = 0
    masked: int = 0
    done: bool = False

    def before_attention(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if not self.done:
            self.masked += kwargs.get("attention_mask") is not None

    def after_decoder(self, module: Any, args: Any, output: Any) -> None:
        if not self.done:
            tensors = [tensor for layer in cache_in(output).layers for tensor in (layer.keys, layer.values)]
            self.kv_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            self.done = True


def _observed(images: Sequence[ImageTokens], trace: ForwardTrace, layers: int) -> Observed:
    """Average over images; one without a token left is not in the trace, and counts as nothing."""
    per_layer = [sum(counts[layer] for counts in trace.per_layer.values()) / len(images) for layer in range(layers)]
    return Observed(
        tokens=sum(per_layer) / layers,
        original=sum(image.original for image in images) / len(images),
        per_layer=per_layer,
        images=len(images),
    )
