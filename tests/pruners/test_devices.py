"""No pruner mixes host and device or asks the device for a value: each runs on a GPU that is only pretended, without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vtpbench.pruners.base import ATTENTION_KINDS, DECODER_KINDS, Cut, Evidence, Grid, Keep, ModelShape, Pruner, TokenView
from vtpbench.pruners.registry import build, entries
from vtpbench.pruners.sending import STAGED_BYTES, send

GPU = torch.device("cuda", 7)
CLIP = {"vision_layers": 24, "vision_width": 1024, "feature_layer": 22, "has_cls": True, "full_attention": tuple(range(24))}
QWEN = {"vision_layers": 32, "vision_width": 1280, "feature_layer": 31, "has_cls": False, "full_attention": (7, 15, 23, 31)}
SHAPES = {
    "llava": (ModelShape("llava", 32, 32, 4096, **CLIP), Grid(1, 24, 24)),
    "llava_next": (ModelShape("llava_next", 32, 32, 4096, **CLIP), Grid(5, 24, 24)),
    "qwen2_5_vl": (ModelShape("qwen2_5_vl", 28, 28, 3584, multi_axis_positions=True, **QWEN), Grid(1, 20, 30)),
}
IMAGES, TEXT, HEAD = 2, 20, 128


class PretendedGpu(TorchDispatchMode):
    """Tensors on `GPU` have shapes and no values, so that reading one is an error; those of the host are real.

    `faults` lists operations that a GPU would refuse or that would make the host wait for it: operands on both sides, copies
    to the host, and copies to the device that are not sent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._pinned: list[Tensor] = []

    def __enter__(self) -> PretendedGpu:
        self._fake.__enter__()  # while it is entered, naming a GPU looks for no driver
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._fake.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options, name = dict(kwargs or {}), func.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, options)) if isinstance(x, Tensor)]
        here = [x for x in tensors if not isinstance(x, FakeTensor)]
        place = options.get("device")
        if name == "_pin_memory":
            with unset_fake_temporarily():
                self._pinned.append(args[0].clone())
            return self._pinned[-1]
        if len(here) == len(tensors) and (place is None or place.type == "cpu"):
            with unset_fake_temporarily():
                return func(*args, **options)
        if name == "_to_copy" and here:
            return self._sent(args[0], options)
        if any(x.dim() or name == "where" for x in here) or (place is not None and place.type == "cpu"):
            self.faults.append(str(func))
        if name == "_thnn_fused_gru_cell":  # torch 2.11 knows no shapes of it
            return torch.empty_like(args[2]), torch.empty_like(args[0])
        return func(*args, **options)

    def _sent(self, made: Tensor, options: Mapping[str, Any]) -> Tensor:
        size = made.numel() * made.element_size()
        pinned = any(made is other for other in self._pinned)
        if size and not (options.get("non_blocking") and (pinned or size <= STAGED_BYTES)):
            self.faults.append("a copy that waits")
        return torch.empty(made.shape, dtype=options.get("dtype") or made.dtype, device=GPU)


@pytest.fixture(scope="module")
def gpu() -> PretendedGpu:
    """One for all: what pruners keep for a device belongs to it."""
    return PretendedGpu()


def visits(pruner: Pruner, model: str) -> Iterator[tuple[Keep, TokenView]]:
    """Run all cuts of a pruner at a fifth of a model's tokens, each on what the one before has left."""
    shape, grid = SHAPES[model]
    budget = grid.n // grid.tiles // 5
    inside, n = pruner.tower_cuts(budget, grid.n // grid.tiles, shape), grid.n // grid.tiles
    rows, lying, size = IMAGES * grid.tiles, Grid(1, grid.height, grid.width), None
    for stage, cut in enumerate(inside):
        at = cut.at % shape.vision_layers
        due = {need for need in pruner.needs(shape) if need.kind in ATTENTION_KINDS and need.layer % shape.vision_layers == at}
        seen = view(cut, stage, due, shape, lying, (rows, n), size=size)
        keep = pruner.apply(seen)
        yield keep, seen
        n, size = keep.k, keep.size
    n *= grid.tiles
    for stage, cut in enumerate(pruner.cuts(budget * grid.tiles, grid.n, shape)):
        due = {need for need in pruner.needs(shape) if (need.kind in DECODER_KINDS) == (cut.at > 0)}
        seen = view(cut, stage, due, shape, grid, (IMAGES, n))
        keep = pruner.apply(seen)
        yield keep, seen
        n = keep.k


def view(
    cut: Cut, stage: int, due: set[Evidence], shape: ModelShape, grid: Grid, size_of: tuple[int, int], **more: Any
) -> TokenView:
    """What a pruner would see, on the GPU."""
    images, n = size_of
    late = cut.at > 0
    width = shape.decoder_width if late else shape.vision_width
    kinds = {
        "hidden": (n, shape.vision_width),
        "received": (n,),
        "cls": (n,),
        "keys": (n, 64),
        "projected": (n, shape.decoder_width),
        "row": (n,),
        "rows_mean": (n,),
        "text": (shape.decoder_heads, TEXT, n),
        "layer_keys": (n, 512),
        "embeddings": (grid.n, shape.decoder_width),
    }

    def drawn(*sizes: int) -> Tensor:
        return torch.randn(images, *sizes, device=GPU)

    return TokenView(
        cut=cut,
        stage=stage,
        features=drawn(n, width),
        index=torch.arange(n, device=GPU).expand(images, -1),
        grid=grid,
        keys=() if cut.at < 0 else tuple(map(str, range(images))),
        evidence={need: drawn(*kinds[need.kind]) for need in due},
        cls=drawn(grid.tiles, width) if shape.has_cls and not late else None,
        text=torch.ones(images, TEXT, dtype=torch.bool, device=GPU) if late else None,
        text_embeddings=drawn(TEXT, shape.decoder_width) if late else None,
        rotary=drawn(n, HEAD) if late else None,
        text_rotary=drawn(TEXT, HEAD) if late else None,
        shape=None if late else shape,
        questions=("Why?",) * images if cut.at == 0 else (),
        **more,
    )


def judge(pruner: Pruner, model: str, gpu: PretendedGpu) -> list[str]:
    """Faults of the second run: what is made once for each geometry, and then kept, may be brought over at leisure."""
    with gpu:
        for _ in range(2):
            gpu.faults.clear()
            for keep, _seen in visits(pruner, model):
                parts = [getattr(keep, part.name) for part in fields(keep)]
                assert {part.device for part in parts if part is not None} == {GPU}
    return gpu.faults


DUMMY = {"checkpoint": "dummy"}
OPTIONS: dict[str, dict[str, object]] = {"oc-vtp": DUMMY}
QWEN_OPTIONS = {"pyramiddrop": {"positions": "keep"}, "sparsevlm": {"positions": "keep"}, "tome": {"stage": "post"}}
"""Without which they refuse Qwen2.5-VL."""


@pytest.mark.parametrize("name", sorted(name for name, entry in entries().items() if entry.distribution == "vtpbench"))
@pytest.mark.parametrize("model", SHAPES)
def test_a_pruner_stays_on_the_device_and_never_waits_for_it(model: str, name: str, gpu: PretendedGpu) -> None:
    options = {**OPTIONS.get(name, {}), **(QWEN_OPTIONS.get(name, {}) if model == "qwen2_5_vl" else {})}
    assert judge(build(name, options), model, gpu) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fastv", {"rows": "all"}),
        ("hiprune", {"compat": True}),
        ("hiprune", {"neighbours": "grid", "alpha": 0.5}),
        ("oc-vtp", {**DUMMY, "pad": "none"}),
        ("oc-vtp", {**DUMMY, "pad": "random"}),
        ("oc-vtp", {**DUMMY, "seed": None, "top_k": 2, "attention": "cls"}),
        ("pyramiddrop", {"positions": "keep"}),
        ("sparsevlm", {"positions": "keep"}),
        ("sparsevlm", {"version": "2", "clamp": None, "heads": 3}),
        ("visionzip", {"contextual": 0}),
    ],
)
def test_nor_does_it_with_other_options(name: str, options: dict[str, object], gpu: PretendedGpu) -> None:
    assert judge(build(name, options), "llava", gpu) == []


def test_what_the_pretended_gpu_finds(gpu: PretendedGpu) -> None:
    small, large = torch.arange(3), torch.zeros(STAGED_BYTES)
    with gpu:
        x = torch.zeros(4, 3, device=GPU)
        gpu.faults.clear()
        assert send(small, GPU).device == send(large, GPU).device == x[send(small, GPU)].device == GPU
        assert gpu.faults == []
        waiting = [lambda: x[small], lambda: x.cpu(), lambda: small.to(GPU), lambda: large.to(GPU, non_blocking=True)]
        for fault in (*waiting, lambda: torch.where(x > 0, torch.tensor(1.0), x)):
            gpu.faults.clear()
            fault()
            assert len(gpu.faults) == 1
        for mixing in (lambda: x + torch.ones(3), lambda: x.gather(1, torch.zeros(4, 1, dtype=torch.int64))):
            with pytest.raises(RuntimeError, match="device"):
                mixing()
        for reading in (lambda: x[0, 0].item(), lambda: bool((x > 0).any()), x.tolist, x.nonzero, lambda: x[x > 0]):
            with pytest.raises(RuntimeError, match="aten"):
                reading()
