"""Take vision tokens out of the decoder while it runs, and put everything back afterwards.

A cut before decoder layer k gathers the hidden states that enter the layer; every later layer then gets rotary tables and
a mask of the shorter sequence, in the prefill and in every decoding step. Nothing is replaced: hooks are registered on the
layers, and removed on the way out, also after an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from vtpbench.harness.pruning.batch import PromptBatch
from vtpbench.harness.pruning.cache_argument import cache_in
from vtpbench.harness.pruning.decoder_evidence import LayerInput, decoder_evidence, text_after
from vtpbench.harness.pruning.joined_prompts import JoinedPrompts
from vtpbench.harness.pruning.layout import PromptLayout
from vtpbench.harness.pruning.sequence import CutResult, SequenceStage, gather_index, prefill_mask, step_mask
from vtpbench.harness.pruning.validation import original_index, raise_if_invalid, validate
from vtpbench.pruners.base import DECODER_KINDS, Cut, TokenView, take
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class ForwardTrace:
    """What the forward pass showed, filled while it runs.

    `per_layer[image]` lists the vision tokens that entered each decoder layer; `kept[image]` maps each cut's layer to the
    places of the tokens that stayed, among the original ones. Of answers, by prompt: `finite` says whether all logits were,
    `ended` whether a token ended it before the limit, and `written` counts its tokens.
    """

    per_layer: dict[int, list[int]] = field(default_factory=dict)
    kept: dict[int, dict[int, Tensor]] = field(default_factory=dict)
    finite: list[bool] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    written: list[int] = field(default_factory=list)


@contextmanager
def decoder_hooks(decoder: nn.Module, batch: PromptBatch) -> Iterator[DecoderPruning]:
    """Make the cuts at depth >= 1 that the batch's images have planned in every forward pass of `decoder` inside the context.

    `decoder` is the text model: it has `layers` and `rotary_emb`. On the way out raises `UserError` for a wrong choice, also
    for one that was made at depth 0.
    """
    state = DecoderPruning(decoder, batch)
    with layer_hooks(decoder, lambda: state):
        yield state
        state.raise_if_invalid()  # asked only now: earlier the host would wait for the device


@contextmanager
def layer_hooks(decoder: Any, current: Callable[[], DecoderPruning | None]) -> Iterator[None]:
    """Let the batch that is `current` when a layer of `decoder` is called act on what enters it; None leaves the layer alone."""

    def before(number: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        state = current()
        return None if state is None else state.before_layer(number, module, args, kwargs)

    with ExitStack() as hooks:
        for number, layer in enumerate(decoder.layers):
            hooks.callback(layer.register_forward_pre_hook(partial(before, number), with_kwargs=True).remove)
        yield


class Stopped(Exception):
    """The layers that were asked for have been run; `states` entered the last of them, and came out of it."""

    def __init__(self, *states: Tensor) -> None:
        super().__init__()
        self.states = states


class DecoderPruning:
    """State of one batch on its way through the decoder.

    Parameters
    ----------
    decoder : the text model
    batch : what is on the way
    until : raises `Stopped` before this layer; None = goes through all
    joining : prompts come together before a layer, up to which others have been; None = they are together

    """

    def __init__(
        self, decoder: Any, batch: PromptBatch, *, until: int | None = None, joining: JoinedPrompts | None = None
    ) -> None:
        self.decoder, self.batch, self.until, self.joining = decoder, batch, until, joining
        self.flash = "flash" in decoder.config._attn_implementation  # such kernels take one flag per column as a mask
        self.layers: list[nn.Module] = list(decoder.layers)
        needs = batch.images[0].schedule.needs if batch.images else frozenset()  # one pruner plans for all images
        self.needs = frozenset(need for need in needs if need.kind in DECODER_KINDS)
        self.boundaries = {cut.at for image in batch.images for cut in image.later_cuts}
        self.trace = ForwardTrace()
        self.stages: list[SequenceStage] = []
        self.added = dict(enumerate(batch.added))
        self.arrived: Tensor | None = None
        self.step: dict[str, Any] = {}
        self.static_tables: Mapping[int, dict[str, Any]] | None = None
        """What a step with fixed addresses gives its layers, by the first layer of their stage."""
        self.invalid_flags: list[Tensor] = []
        """Of the cuts that were made here, whether a choice was wrong."""

    def of(self, batch: PromptBatch) -> DecoderPruning:
        """Give the state of another batch behind the same pass, computed anew in the tensors of this one."""
        state = DecoderPruning(self.decoder, batch)
        state.stages = self.stages
        state.invalid_flags = self.invalid_flags
        for number, image in enumerate(batch.images):
            state.trace.per_layer[number] = list(self.trace.per_layer[number])
            later = {at: places.clone() for at, places in self.trace.kept[number].items() if at}
            state.trace.kept[number] = {0: image.index, **later}
        return state

    def raise_if_invalid(self) -> None:
        """Raise `UserError` for a wrong selection, also for one that was made at depth 0; waits for the device."""
        earlier = [image.invalid for image in self.batch.images if image.invalid is not None]
        if flags := [*earlier, *self.invalid_flags]:
            raise_if_invalid(bool(torch.stack(flags).any()), self.batch.images[0].schedule.name)

    def before_layer(self, number: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Shorten what enters layer `number` where a cut is due, and hand every layer the tables of its sequence."""
        del module
        cache = cache_in(kwargs)
        arrived: Tensor = args[0] if args else kwargs["hidden_states"]
        if self.joining is not None:
            if number < self.joining.at:
                self.arrived = arrived
                return None
            hidden = self._join(self.joining, arrived, kwargs)
        elif cache is not None and cache.get_seq_length(number) > self.batch.before:
            return self._decode(number, args, kwargs)
        else:
            if number == 0:
                self._enter(kwargs["position_embeddings"], kwargs.get("attention_mask"))
            hidden = self._with_added(number - 1, arrived)
        if number == self.until:
            assert self.arrived is not None, "what entered the layer before"
            raise Stopped(self.arrived, hidden)
        if number in self.boundaries:
            hidden = self._cut(number, hidden, kwargs)
        stage = self.stages[-1]
        self._count(number, hidden, stage)
        self.arrived = hidden if number + 1 in self.boundaries or number + 1 == self.until else None
        if stage.at == 0 and not self.flash:
            return None if hidden is arrived else ((hidden, *args[1:]), kwargs)
        # A kernel would misread positions on several axes, and FlashAttention takes gaps for the ends of packed prompts: it
        # would ask the device in every layer, and run another kernel than vanilla's. Both get rotary tables alone.
        positions = None if self.flash or kwargs.get("position_ids") is None else stage.positions
        return (hidden, *args[1:]), {**kwargs, **self._tables(positions, stage.rotary, stage.mask)}

    def _join(self, joining: JoinedPrompts, arrived: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """Put prompts together of what entered this layer, and of what the layers before have cached."""
        assert self.arrived is not None, "a cut is at layer 1 or behind it"
        hidden, self.arrived = joining.states(arrived, of=-1), joining.states(self.arrived, of=0)
        joining.regroup(cache_in(kwargs))
        mask = kwargs.get("attention_mask")  # of the rows: it shows the next stage how the kernel takes one
        self._enter(self.decoder.rotary_emb(hidden, position_ids=self.batch.positions), mask)
        for number in range(joining.at):
            self._count(number, hidden, self.stages[0])
        self.joining = None  # holds states of all prompts
        return hidden

    def _enter(self, rotary: tuple[Tensor, Tensor], mask: Tensor | None) -> None:
        batch, rows = self.batch, len(self.batch.layout.rows)
        cosine, sine = rotary
        rotary = (cosine.expand(rows, -1, -1), sine.expand(rows, -1, -1))
        index = {i: image.index for i, image in enumerate(batch.images)}
        self.stages = [SequenceStage(0, batch.layout, batch.positions, rotary, mask, None, index)]
        self.trace.per_layer = {i: [] for i in range(len(batch.images))}
        self.trace.kept = {i: {0: image.index} for i, image in enumerate(batch.images)}

    def _with_added(self, level: int, hidden: Tensor) -> Tensor:
        """Add to what layer `level` gave what is due behind it, at the vision tokens of the sequence that it saw."""
        due = {image: rows[level] for image, rows in self.added.items() if 0 <= level < len(rows)}
        if not due:
            return hidden
        hidden = hidden.clone()
        for image, rows in due.items():
            place = self.stages[-1].layout.places[image]
            hidden[place.row, place.start : place.start + place.length] += rows.to(hidden.dtype)
        return hidden

    def _count(self, number: int, hidden: Tensor, stage: SequenceStage) -> None:
        if hidden.shape[1] != stage.layout.width:
            raise AssertionError(f"layer {number} gets {hidden.shape[1]} columns, {stage.layout.width} are accounted for")
        for image, place in stage.layout.places.items():
            self.trace.per_layer[image].append(place.length)
        for image in self.trace.per_layer.keys() - stage.layout.places.keys():
            self.trace.per_layer[image].append(0)

    def _cut(self, number: int, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """Let the pruner choose, then gather; leaves a new stage behind."""
        before = self.stages[-1]
        angles = self._angles(before.positions) if any(need.kind == "rotary" for need in self.needs) else None
        cache = cache_in(kwargs)
        arrival = LayerInput(
            self.layers,
            number,
            hidden,
            self.arrived,
            cache,
            before.layout,
            before.rotary,
            self.decoder.norm,
            angles,
            self.batch.system,
        )
        kept: dict[int, CutResult] = {}
        for images, cut, stage_number in self._groups(number):
            schedule = self.batch.images[images[0]].schedule
            view = self._view(images, cut, stage_number, arrival, before)
            keep, invalid = validate(schedule.choose(view), view, schedule.name)
            self.invalid_flags.append(invalid)
            parts = keep.index, original_index(view.index, keep), [None] * len(images) if keep.features is None else keep.features
            kept.update(zip(images, map(CutResult, *parts), strict=True))
        layout = before.layout.shortened({image: len(left.index) for image, left in kept.items()})
        columns = gather_index(before.layout, layout, kept, hidden.device)
        shortened = take(hidden, columns)
        for image, left in kept.items():
            if left.features is not None:
                place = layout.places[image]
                shortened[place.row, place.start : place.start + place.length] = left.features.to(hidden.dtype)
            self.trace.kept[image][number] = left.places
            if image in self.added and number < len(self.added[image]):
                self.added[image] = left.continued(self.added[image])
        self.stages.append(self._next_stage(number, before, layout, columns, kept, shortened))
        return shortened

    def _groups(self, number: int) -> Iterator[tuple[list[int], Cut, int]]:
        """Images that are cut here, together where they have, and had, equally many tokens and the same schedule."""
        layout = self.stages[-1].layout
        groups: dict[tuple[int, int, Cut, int, object], list[int]] = {}
        for i, image in enumerate(self.batch.images):
            for stage, cut in enumerate(image.schedule.cuts):
                if cut.at == number:
                    lengths = layout.places[i].length, len(image.index)  # now, and at the entry
                    groups.setdefault((*lengths, cut, stage, image.grid), []).append(i)
        for (_, _, cut, stage, _), images in groups.items():
            yield images, cut, stage

    def _view(self, images: list[int], cut: Cut, stage_number: int, arrival: LayerInput, before: SequenceStage) -> TokenView:
        rows, columns = before.layout.columns(images, arrival.hidden.device)
        entry, first = self.batch, self.batch.images[images[0]]
        return TokenView(
            cut=cut,
            stage=stage_number,
            features=arrival.hidden[rows, columns].float(),
            index=torch.stack([before.index[i] for i in images]),
            grid=first.grid,
            shape=first.schedule.shape,
            keys=entry.names(images),
            evidence=decoder_evidence(self.needs, arrival, images, entry),
            text=text_after(self.needs, arrival, images, entry),
        )

    def _angles(self, positions: Tensor) -> Tensor:
        """Compute cosines, then sines, of the rotary angles at positions: `(rows, width, head_dim)` float32."""
        single = torch.empty(0, dtype=torch.float32, device=positions.device)  # tells format and device of the tables
        tables = self.decoder.rotary_emb(single, position_ids=positions)
        return torch.cat([table[..., : table.shape[-1] // 2] for table in tables], dim=-1)

    def _next_stage(
        self, at: int, before: SequenceStage, layout: PromptLayout, columns: Tensor, kept: Mapping[int, CutResult], hidden: Tensor
    ) -> SequenceStage:
        mask = prefill_mask(before.mask, layout, columns.device, self.flash, self.batch.before)
        schedule = self.batch.images[next(iter(kept))].schedule
        if schedule.pruner.position_rule == "renumber":
            if before.positions.dim() > 2:
                raise Unsupported(f"{schedule.name}: positions with several axes can be kept only; set positions: keep")
            positions = (self.batch.before + layout.valid(columns.device).cumsum(-1) - 1).clamp(min=0)
            rotary = self.decoder.rotary_emb(hidden, position_ids=positions)
            shift: Tensor | None = self.batch.positions[:, -1:] - positions[:, -1:]
        else:
            shape = before.positions.shape[:-1] + columns.shape[-1:]
            positions = before.positions.gather(-1, columns.expand(shape))
            rotary = (take(before.rotary[0], columns), take(before.rotary[1], columns))
            shift = before.shift
        index = {**before.index, **{image: left.places for image, left in kept.items()}}
        return SequenceStage(at, layout, positions, rotary, mask, shift, index)

    def _decode(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Give a decoding step the positions and the mask of the sequence that its layer has cached."""
        stage = next(s for s in reversed(self.stages) if s.at <= number)
        if stage.at == 0:
            return None
        if self.static_tables is not None:
            return args, {**kwargs, **self.static_tables[stage.at]}
        if number == stage.at:  # once for all layers behind the cut
            hidden: Tensor = args[0] if args else kwargs["hidden_states"]
            self.step = self._step(stage, hidden, kwargs)
        return args, {**kwargs, **self.step}

    def _step(self, stage: SequenceStage, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Make the tables of one decoding step for the layers that see `stage`, of which the first is about to run."""
        positions, rotary = kwargs["position_ids"], kwargs["position_embeddings"]
        if stage.shift is not None:
            positions = positions - stage.shift
            rotary = self.decoder.rotary_emb(hidden, position_ids=positions)
        before = self.batch.before
        new = cache_in(kwargs).get_seq_length(stage.at) + hidden.shape[1] - stage.layout.width - before
        mask = step_mask(kwargs.get("attention_mask"), stage.layout, new, hidden.device, self.flash, before)
        return self._tables(positions, rotary, mask)

    @staticmethod
    def _tables(positions: Tensor | None, rotary: tuple[Tensor, Tensor], mask: Tensor | None) -> dict[str, Any]:
        return {"position_ids": positions, "position_embeddings": rotary, "attention_mask": mask}
