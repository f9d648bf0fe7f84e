"""OC-VTP: keep, for each slot of a trained slot attention, the vision token that it attends to most."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from vtpbench.pruners.base import Cut, Evidence, ModelShape, Pruner, Selection, TokenView, rank
from vtpbench.pruners.budget import one_of
from vtpbench.pruners.errors import BadOption, Infeasible, Unsupported
from vtpbench.pruners.lazy import torch
from vtpbench.pruners.oc_vtp.checkpoint import content_hash, load, network_on, random_network
from vtpbench.pruners.oc_vtp.tower import tower_hash
from vtpbench.pruners.random import private_generator
from vtpbench.pruners.transfer import copy_to_device

if TYPE_CHECKING:
    from torch import Tensor

DEPTH = 9 / 24
"""Where the authors take their features: "layer 9" of CLIP's 24."""
FILE = "oc-vtp.safetensors"
"""Name of the weights in the folder of the model that they were trained for."""
DUMMY = "dummy"
"""As `checkpoint`: random weights of the published widths, to measure speed on a model whose weights are random as well."""


@dataclass(frozen=True)
class OCVTP(Pruner):
    """Choose the tokens that stand for an image's objects; nothing is merged.

    Source: Guangyuan Li, Rongzhen Zhao, Jinhong Deng, Yanbo Wang, Joni Pajarinen, "Object-Centric Vision Token Pruning
    for Vision Language Models", arXiv 2511.20439.

    Departures: S = budget // top_k slots, as in the paper (the released code has one more, `compat_extra_slot`); slot
    noise is seeded and the same for all images (`seed=None`: drawn per image from the global generator, as released);
    a surplus of winners drops the least attended ones (the released code: in the order of a Python set). For
    LLaVA-NeXT (all tiles as one set) and Qwen2.5-VL the instantiation is this project's, no code being public.

    Options
    -------
    checkpoint : trained weights, ours (*.safetensors) or the published weights.pth; relative to the working directory.
        None = oc-vtp.safetensors in the model's folder, `dummy` = random weights, for `vtpbench profile` only
    layer : module index of the vision layer; None = the checkpoint's, or that at 9/24 of the depth
    pad : fill up to the budget by the attention that tokens receive in the feature layer, at random, or not at all
    top_k : tokens per slot
    slots : number of slots; None = budget // top_k
    seed : of the slot noise and of random filling
    attention : what `att_score` ranks by: attention received, mean over all queries, or that of the CLS token
    compat_extra_slot : (budget + 1) // top_k slots

    """

    source: ClassVar[str] = "Li et al., arXiv:2511.20439"
    venue: ClassVar[str] = "arXiv"
    year: ClassVar[int | None] = 2025

    checkpoint: str | None = None
    layer: int | None = None
    pad: Literal["att_score", "random", "none"] = "att_score"
    top_k: int = 1
    slots: int | None = None
    seed: int | None = 0
    attention: Literal["meanq", "cls"] = "meanq"
    compat_extra_slot: bool = False

    def __post_init__(self) -> None:
        one_of("pad", self.pad, ("att_score", "random", "none"))
        one_of("attention", self.attention, ("meanq", "cls"))
        for option, value in (("top_k", self.top_k), ("slots", self.slots)):
            if value is not None and value < 1:
                raise BadOption(option, f"option {option}={value}: use 1 or more")

    @property
    def adaptive(self) -> bool:
        """Whether the count adapts to the image: slots that agree on a token leave the budget unfilled."""
        return self.pad == "none"

    def fingerprint(self, shape: ModelShape) -> str:
        """Hash the content of the checkpoint file; empty where there is none."""
        file = self._file(shape)
        return content_hash(file) if file and file != DUMMY else ""

    def needs(self, shape: ModelShape) -> frozenset[Evidence]:
        """Ask for the features that the checkpoint was trained on and, for padding, an attention summary."""
        file = self._file(shape)
        if file is None:
            raise Unsupported(
                "oc-vtp has no trained checkpoint for this model; train one with "
                "`vtpbench train oc-vtp --model MODEL --images FOLDER`, or name one: `checkpoint: FILE`"
            )
        layer = self._layer(file, shape)
        if self.pad != "att_score":
            return frozenset({Evidence("hidden", layer)})
        if self.attention == "cls" and not shape.has_cls:
            raise Unsupported(f"{shape.family} uses no CLS token; use `attention: meanq`")
        return frozenset({Evidence("hidden", layer), Evidence(self._summary, shape.feature_layer)})

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut once, before the language model; refuses a budget too small for one slot."""
        if self._slot_count(budget) < 1:
            raise Infeasible(f"a budget of {budget} leaves no slot with top_k {self.top_k}; lower top_k or raise the budget")
        if (file := self._file(shape)) and file != DUMMY:
            load(file).verify(tokens=n)
        return (Cut(0, budget),)

    def reduce(self, view: TokenView) -> Selection:
        """Take every slot's best tokens, then pad; `valid` marks the unpadded choice where `pad` is `none`."""
        attention = self._attend(view)
        chosen = winners(attention, self.top_k)
        index = choose(chosen, attention, self._filling(view), view.cut.keep)
        valid = chosen.gather(1, index) if self.pad == "none" else None
        return Selection(index, valid=valid)

    def segments(self, view: TokenView) -> Tensor:
        """Give each token the slot that attends to it most."""
        return self._attend(view).argmax(dim=1)

    @property
    def _summary(self) -> Literal["received", "cls"]:
        return "received" if self.attention == "meanq" else "cls"

    def _file(self, shape: ModelShape) -> str | None:
        """Find the checkpoint: the one that is named, else the one in the model's folder, if there is one."""
        if self.checkpoint is not None or shape.folder is None:
            return self.checkpoint
        beside = Path(shape.folder, FILE)
        return str(beside) if beside.is_file() else None

    def _layer(self, file: str, shape: ModelShape) -> int:
        """Find the vision layer, and refuse a checkpoint that was not trained for this model."""
        if file == DUMMY:
            if shape.folder is not None:
                raise Unsupported("oc-vtp with `checkpoint: dummy` has random weights; it is for models that have, too")
            return resolve_layer(self.layer, shape)
        trained = load(file)
        layer = resolve_layer(trained.header.layer if self.layer is None else self.layer, shape)
        tower = tower_hash(shape.folder) if shape.folder and trained.header.tower else None
        trained.verify(width=shape.vision_width, layer=layer, tower=tower)
        return layer

    def _slot_count(self, budget: int) -> int:
        return self.slots or (budget + self.compat_extra_slot) // self.top_k

    def _attend(self, view: TokenView) -> Tensor:
        file = self._file(view.shape)
        assert file is not None, "needs() refuses to run without"
        features = view.get("hidden")
        width, device = features.shape[-1], features.device
        network = random_network(width, device) if file == DUMMY else network_on(file, device)
        size = (self._slot_count(view.cut.keep), network.initializ.mean.shape[-1])
        with torch.no_grad():
            noise = (
                copy_to_device(torch.randn(len(features), *size), device)
                if self.seed is None
                else slot_noise(self.seed, size, device)
            )
            attention: Tensor = network.bind(features, noise)[1]
        return attention

    def _filling(self, view: TokenView) -> Tensor:
        """Score the tokens for padding, `(images, n)`; unused where `pad` is `none`."""
        if self.pad == "att_score":
            return view.get(self._summary)
        if self.pad == "none":
            return torch.zeros_like(view.features[..., 0])
        if self.seed is None:
            return copy_to_device(torch.rand(view.features.shape[:2]), view.features.device)
        draws = [torch.rand(view.n, generator=private_generator("oc-vtp filling", self.seed, key)) for key in view.keys]
        return copy_to_device(torch.stack(draws), view.features.device)


@lru_cache(maxsize=16)
def slot_noise(seed: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Draw the noise of all images, (slots, width), on the host, where it is the same for every device."""
    return copy_to_device(torch.randn(size, generator=private_generator("oc-vtp slots", seed)), device)


def resolve_layer(layer: int | None, shape: ModelShape) -> int:
    """Find a vision layer's module index; None = at 9/24 of the depth.

    In towers with windowed attention None is the nearest layer with full attention, the deeper of two.
    """
    if layer is None:
        default = shape.vision_layer(DEPTH)
        return min(shape.full_attention or (default,), key=lambda full: (abs(full - default), -full))
    resolved = layer + shape.vision_layers if layer < 0 else layer
    if not 0 <= resolved < shape.vision_layers:
        raise Unsupported(f"layer {layer} is not among the {shape.vision_layers} layers of {shape.family}'s vision tower")
    return resolved


def winners(attention: Tensor, top_k: int) -> Tensor:
    """Mark each slot's `top_k` most attended tokens: `(B, S, N)` to `(B, N)` bool; ties favour the lower index."""
    best = attention.argmax(-1) if top_k == 1 else rank(attention)[..., :top_k].flatten(1)
    return torch.zeros_like(attention[:, 0], dtype=torch.bool).scatter_(1, best, True)


def choose(chosen: Tensor, attention: Tensor, filling: Tensor, k: int) -> Tensor:
    """Keep `k` tokens, `(B, k)` ascending: the chosen by the attention of their keenest slot, then others by `filling`."""
    order = rank(torch.where(chosen, attention.amax(dim=1), filling.to(attention)))
    first = rank(chosen.gather(1, order))  # stable: moves the chosen to the front and leaves both parts in order
    return order.gather(1, first)[:, :k].sort(-1).values
