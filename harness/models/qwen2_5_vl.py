"""Qwen2.5-VL: pictures of any size, a windowed tower that merges 2 x 2 patches, positions on three axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image, Resampling
from torch import Tensor, nn

from vtpbench.harness.models.family import Family
from vtpbench.harness.models.positions import position_limit
from vtpbench.harness.models.pretrained import load_pretrained, read_pretrained
from vtpbench.harness.models.qwen_attention import block_evidence, window_order
from vtpbench.harness.pruning.batch import ImageGroup, ImageTokens, VisionTokens
from vtpbench.harness.pruning.encoder_evidence import record_activations
from vtpbench.harness.pruning.layout import PromptLayout, Span
from vtpbench.harness.pruning.schedule import Schedule
from vtpbench.pruners.base import ATTENTION_KINDS, Evidence, Grid, ModelShape
from vtpbench.pruners.errors import Unsupported

PATCHES_AT_ONCE = 1 << 15
"""Patches that go through the tower together, though at least one image."""


@dataclass(frozen=True)
class SizedImages(ImageGroup):
    """Images whose tokens lie alike, as they came."""

    images: tuple[Image, ...]


@dataclass(frozen=True)
class ImagePatches(ImageGroup):
    """Images whose tokens lie alike, cut into patches; `patches` is `(images, 4 * tokens, values)`."""

    patches: Tensor


class Qwen25VL(Family):
    """`Qwen2_5_VLForConditionalGeneration`.

    A vision token is what the merger makes of 2 x 2 patches: cuts at depth 0 act behind the merger, where the projector of
    other models stands, so that `project` has nothing left to do. An image's tokens keep the positions that they have in
    the full prompt, and the text after it goes on from there.
    """

    preprocessings = ("dynamic",)

    def __init__(
        self, model: Any, tokenizer: Any, image_processor: Any, chat_template: str, preprocessing: str = "dynamic"
    ) -> None:
        del preprocessing  # it has one only
        self.model, self.tokenizer, self.image_processor, self.chat_template = model, tokenizer, image_processor, chat_template
        self.image_id = model.config.image_token_id
        self.shape, _ = self.describe(model.config, "dynamic")
        vision = model.config.vision_config
        self._unit = vision.patch_size * vision.spatial_merge_size  # pixels along each side of a vision token
        self._window = vision.window_size // self._unit

    @classmethod
    def describe(cls, config: Any, preprocessing: str) -> tuple[ModelShape, None]:
        """Shape of a model with this configuration; the number of vision tokens depends on the image."""
        del preprocessing
        vision, text = config.vision_config, config.text_config
        if "sliding_attention" in text.layer_types:
            raise Unsupported("Qwen2.5-VL with sliding-window attention is not supported; set use_sliding_window to false")
        if vision.spatial_merge_size != 2:
            raise Unsupported(f"only Qwen2.5-VL that merges 2 x 2 patches is supported, not {vision.spatial_merge_size}")
        shape = ModelShape(
            family="qwen2_5_vl",
            decoder_layers=text.num_hidden_layers,
            decoder_heads=text.num_attention_heads,
            decoder_width=text.hidden_size,
            vision_layers=vision.depth,
            vision_width=vision.hidden_size,
            feature_layer=vision.depth - 1,
            has_cls=False,
            full_attention=tuple(vision.fullatt_block_indexes),
            tiles=1,
            multi_axis_positions=True,
            positions=position_limit(text),
        )
        return shape, None

    @classmethod
    def load(
        cls, path: Path, dtype: torch.dtype, device: torch.device, attention: str, preprocessing: str, template: str
    ) -> Qwen25VL:
        """Load a checkpoint; the caller has verified that it is one."""
        from transformers import AutoImageProcessor, AutoTokenizer

        del preprocessing
        options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
        model = load_pretrained(cls.model_class(), path, device, **options)
        tokenizer = read_pretrained(AutoTokenizer, path)
        images = read_pretrained(AutoImageProcessor, path, backend="pil")
        return cls(model, tokenizer, images, template)

    @property
    def decoder(self) -> nn.Module:
        """The language model, a Qwen2.5."""
        return self.model.model.language_model  # type: ignore[no-any-return]  # found by attribute

    @staticmethod
    def model_class() -> Any:
        """Class of transformers that holds the weights."""
        from transformers import Qwen2_5_VLForConditionalGeneration

        return Qwen2_5_VLForConditionalGeneration

    @property
    def vision_tower(self) -> nn.Module:
        """The windowed tower with its merger."""
        return self.model.model.visual  # type: ignore[no-any-return]  # found by attribute

    def group(self, images: Sequence[Image]) -> Sequence[SizedImages]:
        """Group images whose tokens lie alike; their pixels are made when they go through the tower."""
        groups: dict[Grid, list[int]] = {}
        for member, image in enumerate(images):
            groups.setdefault(self._grid(image), []).append(member)
        return [
            SizedImages(tuple(members), grid, grid.n, tuple(images[member] for member in members))
            for grid, members in groups.items()
        ]

    def group_pixels(self, pixels: Tensor, sizes: Tensor | None, counts: Sequence[int]) -> Sequence[ImagePatches]:
        """Take patches of images one after the other, `(patches, values)`, with `sizes`: patches in time, height and width."""
        del counts
        assert sizes is not None, "the tower itself takes them"
        groups: dict[Grid, list[Tensor]] = {}
        members: dict[Grid, list[int]] = {}
        whole = sizes.tolist()
        for member, (part, (time, height, width)) in enumerate(zip(pixels.split(sizes.prod(-1).tolist()), whole, strict=True)):
            if time != 1:
                raise Unsupported("videos are not supported; give images")
            grid = Grid(1, height // 2, width // 2)
            groups.setdefault(grid, []).append(part)
            members.setdefault(grid, []).append(member)
        return [ImagePatches(tuple(members[grid]), grid, grid.n, torch.stack(parts)) for grid, parts in groups.items()]

    def pixels(self, group: ImageGroup) -> Tensor:
        """Give the patches of each image, `(images, patches, values)`."""
        return self._patches(group, slice(None), group.grid)

    def encode(self, group: ImageGroup, schedule: Schedule) -> VisionTokens:
        """Run the tower over images of one size, as many patches at once as `PATCHES_AT_ONCE`."""
        if schedule.tower_cuts:
            raise Unsupported("no token can leave inside the tower of Qwen2.5-VL: its windows and its merger need them all")
        size = schedule.target_grid
        grid = group.grid if size is None else Grid(1, *size)
        at_once = max(1, PATCHES_AT_ONCE // (4 * grid.n))
        chunks = [slice(start, start + at_once) for start in range(0, len(group.members), at_once)]
        parts = [self._run_tower(self._patches(group, chunk, grid), grid, schedule.needs) for chunk in chunks]
        return VisionTokens(
            members=group.members,
            features=torch.cat([features for features, _ in parts]),
            index=torch.arange(grid.n, device=self.device).expand(len(group.members), -1),
            cls=None,
            grid=grid,
            evidence={need: torch.cat([evidence[need] for _, evidence in parts]) for need in parts[0][1]},
            original=group.tokens,
            schedule=schedule,
            tower=(grid.n,) * self.shape.vision_layers,
        )

    def _grid(self, image: Image) -> Grid:
        """Tokens of an image at the size that the processor gives it."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        limits = self.image_processor.size
        height, width = smart_resize(
            image.height, image.width, self._unit, min_pixels=limits["shortest_edge"], max_pixels=limits["longest_edge"]
        )
        return Grid(1, height // self._unit, width // self._unit)

    def _patches(self, group: ImageGroup, part: slice, grid: Grid) -> Tensor:
        """Cut some images of a group into patches, `(images, patches, values)`, such that their tokens lie like `grid`."""
        if isinstance(group, ImagePatches):
            assert grid == group.grid, "what has been cut keeps its size"
            return group.patches[part]
        assert isinstance(group, SizedImages), "what `group` gave"
        ready, resize = [image.convert("RGB") for image in group.images[part]], grid != group.grid
        if resize:
            size = (self._unit * grid.width, self._unit * grid.height)
            ready = [image.resize(size, Resampling.BICUBIC) for image in ready]
        patches: Tensor = self.image_processor(ready, do_resize=not resize, return_tensors="pt")["pixel_values"]
        return patches.reshape(len(ready), -1, patches.shape[-1])

    def _run_tower(self, patches: Tensor, grid: Grid, needs: frozenset[Evidence]) -> tuple[Tensor, dict[Evidence, Tensor]]:
        """Vision tokens `(images, n, width)` and evidence of images whose tokens lie like `grid`."""
        tower: Any = self.vision_tower
        blocks, depth = tower.blocks, self.shape.vision_layers
        outputs = {n.layer % depth for n in needs if n.kind == "hidden"}
        attended = {n.layer % depth for n in needs if n.kind in ATTENTION_KINDS}
        pixels = patches.flatten(0, 1).to(self.device, self.model.dtype)
        sizes = torch.tensor([[1, 2 * grid.height, 2 * grid.width]] * len(patches)).to(self.device)
        with record_activations(blocks, outputs, attended, attention="attn", projections=("qkv",)) as seen:
            merged = tower(pixels, grid_thw=sizes).pooler_output
        features = merged.unflatten(0, (len(patches), grid.n))
        evidence: dict[Evidence, Tensor] = {}
        if outputs or attended:
            order = window_order(grid.height, grid.width, self._window, self.device)
            evidence = block_evidence(blocks, self.shape.full_attention, seen, needs, order)
        evidence.update((need, features.float()) for need in needs if need.kind == "projected")
        return features, evidence

    def project(self, features: Tensor) -> Tensor:
        """Leave features alone: the tower's merger has projected them."""
        return features

    def positions(self, layout: PromptLayout, images: Sequence[ImageTokens]) -> Tensor:
        """Positions in the full prompt, `(3, rows, width)`: time, height and width.

        A token of an image stands at its row and column behind the text before the image, and text goes on behind the
        image's longer side. A row that continues no token stands where its image begins. Padding has position 0.
        """
        positions = torch.zeros(3, len(layout.rows), layout.width, dtype=torch.int64, device=self.device)
        for r, row in enumerate(layout.rows):
            column, start = layout.width - layout.lengths[r], 0
            for part in row:
                place, length = self._places(part, images)
                positions[:, r, column : column + part.length] = start + place
                column, start = column + part.length, start + length
        return positions

    def _places(self, part: Span, images: Sequence[ImageTokens]) -> tuple[Tensor, int]:
        """Positions of a part's tokens, counted from its beginning, and by how much it moves what follows."""
        if part.image is None:
            return torch.arange(part.length, device=self.device), part.length
        index, grid = images[part.image].index.clamp(min=0), images[part.image].grid
        axes = [torch.zeros_like(index), index // grid.width, index % grid.width]
        return torch.stack(axes), max(grid.height, grid.width)
