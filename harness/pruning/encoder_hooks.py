"""Take tokens out of a CLIP-like vision tower while it runs, between the attention and the MLP of a layer.

Nothing is replaced, hooks alone do it. What reaches the layer's second norm is what attention and its residual gave: there the
pruner chooses. The norm and the MLP then run over what stays. The layer's own sum, which still has all rows, gets a zero
from the MLP, and its result gives way to the sum of the rows that stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vtpbench.harness.pruning.encoder_evidence import RecordedActivations, encoder_evidence
from vtpbench.harness.pruning.schedule import Schedule
from vtpbench.harness.pruning.validation import original_index, selected_rows, validate
from vtpbench.pruners.base import ATTENTION_KINDS, Cut, Evidence, Grid, ModelShape, TokenView, take
from vtpbench.pruners.errors import Unsupported, UserError
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

LAYER_KINDS = ATTENTION_KINDS | {"hidden"}
"""Evidence of one of the tower's layers."""


@dataclass(frozen=True)
class EncoderPlan:
    """What happens to every tile.

    Attributes
    ----------
    schedule : what the pruner plans
    grid : how the tokens of one tile lie
    prefix : tokens of the tower before these, which stay: 1 is CLS, 0 a tower without it

    """

    schedule: Schedule
    grid: Grid
    prefix: int = 1

    def __post_init__(self) -> None:
        """Refuse cuts that are not in layers which the features pass, or not one after the other."""
        first, last = -self.shape.vision_layers, self.shape.feature_layer - self.shape.vision_layers
        layers, counts = [cut.at for cut in self.cuts], [self.grid.n, *(cut.keep for cut in self.cuts)]
        name = self.schedule.name
        if any(not first <= at <= last for at in layers):
            raise UserError(f"{name} cuts in vision layers {layers}; the features pass layers {first} to {last}, from the end")
        if any(a >= b for a, b in pairwise(layers)) or any(a < b for a, b in pairwise(counts)) or counts[-1] < 1:
            where = f"in vision layers {layers}"
            raise UserError(f"{name} plans {counts} tokens {where}; layers must ascend, counts descend to 1 or more")

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Cuts inside the tower, layers counted from its end."""
        return self.schedule.tower_cuts

    @property
    def needs(self) -> frozenset[Evidence]:
        """All that the pruner wants to see of the tower."""
        return self.schedule.needs

    @property
    def shape(self) -> ModelShape:
        """The model that the schedule was resolved on."""
        return self.schedule.shape

    def layer(self, number: int) -> int:
        """Count a layer, a module index or one from the end, from the beginning."""
        return number % self.shape.vision_layers

    def due(self, cut: Cut) -> frozenset[Evidence]:
        """List what is wanted at a cut: attention of its layer."""
        at = self.layer(cut.at)
        return frozenset(need for need in self.needs if need.kind in ATTENTION_KINDS and self.layer(need.layer) == at)

    def left(self) -> frozenset[Evidence]:
        """List what is wanted of the tokens that leave the tower; raises `Unsupported` where a layer still had others."""
        left = self.needs.difference(*map(self.due, self.cuts))
        last = max((self.layer(cut.at) for cut in self.cuts), default=-1)
        for need in left:
            if need.kind in LAYER_KINDS and self.layer(need.layer) < last:
                name = self.schedule.name
                raise Unsupported(f"{name} wants {need.kind} of vision layer {need.layer}, after which tokens leave the tower")
        return left


@contextmanager
def encoder_hooks(layers: Sequence[nn.Module], plan: EncoderPlan, seen: RecordedActivations) -> Iterator[EncoderPruning]:
    """Make a plan's cuts in one pass of tiles through a tower; `seen` records the attention of the layers that have one."""
    state = EncoderPruning(layers, plan, seen)
    with ExitStack() as hooks:
        for stage, cut in enumerate(plan.cuts):
            layer: Any = layers[cut.at]
            choose = partial(state.choose, stage, cut)
            hooks.callback(layer.layer_norm2.register_forward_pre_hook(choose).remove)
            hooks.callback(layer.mlp.register_forward_hook(state.hold).remove)
            # before anyone who records what comes out of the layer
            hooks.callback(layer.register_forward_hook(state.finish, prepend=True).remove)
        for layer in layers if plan.cuts else ():
            hooks.callback(layer.self_attn.register_forward_pre_hook(state.weigh, with_kwargs=True).remove)
        yield state


class EncoderPruning:
    """Some tiles on their way through the tower."""

    def __init__(self, layers: Sequence[nn.Module], plan: EncoderPlan, seen: RecordedActivations) -> None:
        self.layers, self.plan, self.seen = layers, plan, seen
        self.index: Tensor | None = None
        """Place of each token in its tile, `(tiles, n)`, -1 for one that has none; None while all are there, in order."""
        self._size: Tensor | None = None
        self._invalid: list[Tensor] = []
        self._counts: dict[int, int] = {}  # by layer
        self._rows: Tensor | None = None
        self._change: Tensor | None = None

    @property
    def per_layer(self) -> tuple[int, ...]:
        """Tokens of a tile that entered the MLP of each layer."""
        counts = [self.plan.grid.n]
        for number in range(len(self.layers)):
            counts.append(self._counts.get(number, counts[-1]))
        return tuple(counts[1:])

    @property
    def invalid(self) -> Tensor | None:
        """Whether a choice must be refused, a scalar bool on the device; None where nothing was chosen."""
        return torch.stack(self._invalid).any() if self._invalid else None

    def weigh(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Let a layer attend to a row as to all the tokens that it stands for: the logarithm of its size is added."""
        if self._size is None:
            return None
        if "flash" in module.config._attn_implementation:
            name = self.plan.schedule.name
            raise Unsupported(f"{name} weighs tokens in the vision tower, which FlashAttention cannot; use attention: sdpa")
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        weight = torch.nn.functional.pad(self._size.log(), (self.plan.prefix, 0))  # CLS stands for itself
        return args, {**kwargs, "attention_mask": weight[:, None, None, :].to(hidden.dtype)}

    def choose(self, stage: int, cut: Cut, module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        """Let the pruner choose among what attention gave, and let no more go on."""
        del module
        plan, (hidden,) = self.plan, args
        before, tokens = hidden[:, : plan.prefix], hidden[:, plan.prefix :]
        if self.index is None:
            self.index = torch.arange(plan.grid.n, device=hidden.device).expand(len(hidden), -1)
        view = TokenView(
            cut=cut,
            stage=stage,
            features=tokens.float(),
            index=self.index,
            grid=plan.grid,
            shape=plan.shape,
            evidence=self._attention(cut),
            cls=before.float() if plan.prefix else None,
            size=self._size,
        )
        keep, invalid = validate(plan.schedule.choose(view), view, plan.schedule.name)
        self._invalid.append(invalid)
        self.index = original_index(self.index, keep)
        if keep.size is not None:
            self._size = keep.size
        elif self._size is not None:  # as the token that it continues; a row that continues none stands for itself
            self._size = torch.where(keep.index < 0, 1, take(self._size, keep.index.clamp(min=0)))
        self._counts[plan.layer(cut.at)] = keep.k
        self._rows = torch.cat([before, selected_rows(tokens, keep)], dim=1)
        return (self._rows,)

    def _attention(self, cut: Cut) -> dict[Evidence, Tensor]:
        """Collect what is wanted of this layer's attention, and let go of what it was made of: a tower has many layers."""
        found = encoder_evidence(self.layers, self.seen, self.plan.due(cut), prefix=self.plan.prefix)
        number = self.plan.layer(cut.at)
        for key in [key for key in self.seen.projected if key[0] == number]:
            del self.seen.projected[key]
        return found

    def hold(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Keep back what the MLP gives: the layer would add it to all rows."""
        del module, args
        self._change = output
        return output.new_zeros(())

    def finish(self, module: nn.Module, args: Any, output: Any) -> Tensor:
        """Add it to the rows that stay."""
        del module, args, output
        assert self._rows is not None
        assert self._change is not None
        return self._rows + self._change
