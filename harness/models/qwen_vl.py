"""What the Qwen-VL families share: pictures of any size, a tower that merges 2 x 2 patches, positions on three axes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from PIL.Image import Image, Resampling

from vtpbench.harness.models.dimensions import TowerDimensions
from vtpbench.harness.models.family import Family, join_pixels
from vtpbench.harness.models.mrope import mrope_positions
from vtpbench.harness.models.positions import position_limit
from vtpbench.harness.models.qwen_attention import block_evidence
from vtpbench.harness.models.qwen_groups import ImagePatches, SizedImages, group_by_grid, group_patches
from vtpbench.harness.models.qwen_pictures import PictureRule, fitted
from vtpbench.harness.pruning.batch import ImageGroup, ImageTokens, VisionTokens
from vtpbench.harness.pruning.encoder_evidence import record_activations
from vtpbench.harness.pruning.layout import PromptLayout
from vtpbench.harness.pruning.schedule import Schedule
from vtpbench.pruners.base import ATTENTION_KINDS, Evidence, Grid, ModelShape
from vtpbench.pruners.errors import Unsupported
from vtpbench.pruners.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

PATCHES_AT_ONCE = 1 << 15
"""Patches that go through the tower together, though at least one image."""
OWN_SETTINGS = PictureRule()
"""As the checkpoint's image processor has it."""


class QwenVL(Family):
    """A Qwen-VL model.

    A vision token is what the merger makes of 2 x 2 patches: cuts at depth 0 act behind the merger, where the projector of
    other models stands, so that `project` has nothing left to do. An image's tokens keep the positions that they have in
    the full prompt, and the text after it goes on from there.
    """

    title: ClassVar[str]
    """As its authors write it."""
    rules: ClassVar[Mapping[str, PictureRule]] = MappingProxyType({"dynamic": OWN_SETTINGS})
    """What each of `preprocessings` does; the last is `dynamic`, the stock processor's way."""
    preprocessings: ClassVar[tuple[str, ...]] = ("dynamic",)
    limits: ClassVar[tuple[int, int]] = (4, 16384)
    """Fewest and most vision tokens of an image, as published."""
    colours: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Means and deviations of colours, as published, where they are not those of CLIP."""

    def __init__(
        self, model: Any, tokenizer: Any, image_processor: Any, chat_template: str, preprocessing: str = "dynamic"
    ) -> None:
        self.model, self.tokenizer, self.image_processor, self.chat_template = model, tokenizer, image_processor, chat_template
        self.rule = self.rules[preprocessing]
        self.image_id = model.config.image_token_id
        self.shape, _ = self.describe(model.config, preprocessing)
        vision = model.config.vision_config
        self._unit = vision.patch_size * vision.spatial_merge_size  # pixels along each side of a vision token

    @classmethod
    def describe(cls, config: Any, preprocessing: str) -> tuple[ModelShape, None]:
        """Shape of a model with this configuration; the number of vision tokens depends on the image."""
        del preprocessing
        vision, text = config.vision_config, config.text_config
        if getattr(text, "use_sliding_window", True) and "sliding_attention" in (getattr(text, "layer_types", None) or ()):
            raise Unsupported(f"{cls.title} with sliding-window attention is not supported; set use_sliding_window to false")
        if vision.spatial_merge_size != 2:
            raise Unsupported(f"only {cls.title} that merges 2 x 2 patches is supported, not {vision.spatial_merge_size}")
        shape = ModelShape(
            family=config.model_type,
            decoder_layers=text.num_hidden_layers,
            decoder_heads=text.num_attention_heads,
            decoder_width=text.hidden_size,
            vision_layers=vision.depth,
            vision_width=cls.tower_dimensions(config).width,
            feature_layer=vision.depth - 1,
            has_cls=False,
            full_attention=cls.full_attention(vision),
            tiles=1,
            multi_axis_positions=True,
            positions=position_limit(text),
            whole_tower=f"no token can leave inside the vision tower of {cls.title}, whose merger needs all patches",
        )
        return shape, None

    @classmethod
    def full_attention(cls, vision: Any) -> tuple[int, ...]:
        """Blocks of the tower in which every patch of an image sees every other."""
        return tuple(range(vision.depth))

    @classmethod
    @abstractmethod
    def tower_dimensions(cls, config: Any) -> TowerDimensions:
        """Sizes of the tower with its merger."""

    @staticmethod
    def plain_tower(vision: Any, width: int, intermediate: int, out: int) -> TowerDimensions:
        """Sizes of a tower without windows, whose MLPs have no gate, with one merger; what families name alike is read here."""
        merged = vision.spatial_merge_size**2 * width
        return TowerDimensions(
            layers=vision.depth,
            width=width,
            intermediate=intermediate,
            matrices=2,
            patch=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
            patches=vision.spatial_merge_size**2,
            cls=0,
            window=None,
            full=vision.depth,
            merger=(merged, merged, out),
        )

    @classmethod
    def dimensions(cls, config: Any) -> tuple[TowerDimensions, tuple[int, ...]]:
        """Sizes of the tower; the merger is part of it, so that there is no projector."""
        return cls.tower_dimensions(config), ()

    @classmethod
    def published_processor(cls, config: Any) -> Any:
        """Image processor whose limits, in vision tokens, are those of the published checkpoints."""
        from transformers import Qwen2VLImageProcessorPil

        vision = config.vision_config
        pixels = (vision.patch_size * vision.spatial_merge_size) ** 2
        limits = {edge: pixels * tokens for edge, tokens in zip(("shortest_edge", "longest_edge"), cls.limits, strict=True)}
        sizes = {"patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size, "size": limits}
        return Qwen2VLImageProcessorPil(**sizes, **cls.colours)

    @property
    def decoder(self) -> nn.Module:
        """The language model."""
        return self.model.model.language_model  # type: ignore[no-any-return]  # found by attribute

    @property
    def vision_tower(self) -> nn.Module:
        """The tower with its merger."""
        return self.model.model.visual  # type: ignore[no-any-return]  # found by attribute

    def group(self, images: Sequence[Image]) -> Sequence[SizedImages]:
        """Group images whose tokens lie alike; their pixels are made when they go through the tower."""
        return group_by_grid(images, [self._grid(image) for image in images])

    def group_pixels(self, pixels: Tensor, sizes: Tensor | None, counts: Sequence[int]) -> Sequence[ImagePatches]:
        """Take patches of images one after the other, `(patches, values)`, with `sizes`: patches in time, height and width."""
        del counts
        assert sizes is not None, "the tower itself takes them"
        return group_patches(pixels, sizes)

    def pixels(self, group: ImageGroup) -> Tensor:
        """Give the patches of each image, `(images, patches, values)`."""
        return self._patches(group, slice(None), group.grid)

    def encode(self, group: ImageGroup, schedule: Schedule) -> VisionTokens:
        """Run the tower over images of one size, as many patches at once as `PATCHES_AT_ONCE`."""
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
        """Tokens of an image at the size that it is resized to."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        if self.rule.fewest is not None and self.rule.most is not None:
            return Grid(1, *fitted(image.height, image.width, self._unit, self.rule.fewest, self.rule.most))
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
        images = group.images[part]
        by_processor = grid == group.grid and self.rule.most is None
        size = (self._unit * grid.width, self._unit * grid.height)

        def ready(image: Image) -> Image:
            own = self.rule.ready(image)
            return own if by_processor else own.resize(size, Resampling.BICUBIC)

        patches = join_pixels(self.pixel_values(images, ready, do_resize=by_processor))
        return patches.reshape(len(images), -1, patches.shape[-1])

    def _run_tower(self, patches: Tensor, grid: Grid, needs: frozenset[Evidence]) -> tuple[Tensor, dict[Evidence, Tensor]]:
        """Vision tokens `(images, n, width)` and evidence of images whose tokens lie like `grid`."""
        self.captured_passes.refuse("tower", "transformers' tower reads the sizes of pictures from the device")
        tower: Any = self.vision_tower
        blocks, depth = tower.blocks, self.shape.vision_layers
        outputs = {n.layer % depth for n in needs if n.kind == "hidden"}
        attended = {n.layer % depth for n in needs if n.kind in ATTENTION_KINDS}
        pixels = patches.flatten(0, 1).to(self.device, self.model.dtype)
        sizes = torch.tensor([[1, 2 * grid.height, 2 * grid.width]] * len(patches)).to(self.device)
        with record_activations(blocks, outputs, attended, attention="attn", projections=("qkv",)) as seen:
            merged = self.merged(tower(pixels, grid_thw=sizes))
        features = merged.unflatten(0, (len(patches), grid.n))
        evidence: dict[Evidence, Tensor] = {}
        if outputs or attended:
            evidence = block_evidence(self.title, blocks, self.shape.full_attention, seen, needs, self.unit_order(grid))
        projected = features[..., : self.shape.decoder_width].float()
        evidence.update((need, projected) for need in needs if need.kind == "projected")
        return features, evidence

    def merged(self, output: Any) -> Tensor:
        """Take from the tower's output what its merger made, `(units of all images, width)`."""
        tokens: Tensor = output.pooler_output
        return tokens

    def unit_order(self, grid: Grid) -> Tensor:
        """Units of an image, by their raster number, in the order in which they stand between the tower's blocks."""
        return torch.arange(grid.n, device=self.device)

    def stock_inputs(self, question: str, images: Sequence[Image]) -> dict[str, Any]:
        """Give ids with placeholders, their kinds, and patches; pictures are those of `rule`."""
        groups = self.group(images)
        patches = {member: part for group in groups for member, part in zip(group.members, self.pixels(group), strict=True)}
        grids = {member: group.grid for group in groups for member in group.members}
        order = range(len(images))
        ids = self.expanded_ids(question, [grids[n].n for n in order])
        shown: dict[str, Any] = {}
        if images:
            sizes = torch.tensor([[1, 2 * grids[n].height, 2 * grids[n].width] for n in order], device=self.device)
            shown = {"pixel_values": torch.cat([patches[n] for n in order]), "image_grid_thw": sizes}
            shown["mm_token_type_ids"] = (ids == self.image_id).int()
        return {"input_ids": ids, **shown}

    def project(self, features: Tensor) -> Tensor:
        """Leave features alone: the tower's merger has projected them."""
        return features

    def positions(self, layout: PromptLayout, images: Sequence[ImageTokens]) -> Tensor:
        """Positions in the full prompt, see `mrope_positions`."""
        return mrope_positions(layout, images, self.device)
