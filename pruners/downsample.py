"""Downsampling: the floor that shows the model a smaller image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vtpbench.pruners.base import Cut, Grid, ModelShape, Pruner
from vtpbench.pruners.errors import Unsupported, share


@dataclass(frozen=True)
class Downsample(Pruner):
    """Shrink the image before the vision tower so that it yields at most the budget's tokens; nothing is cut afterwards.

    The grid has the most tokens among those whose aspect is within a factor 2.25 of the image's (1.5 a side, as the uniform
    grid has it), then the nearest aspect. On 24 x 24 that is the uniform grid's 12 x 16, 8 x 16, 8 x 8 and 4 x 8 for 192,
    128, 64 and 32; other budgets may give fewer tokens, and the observed mean is reported. Of several tiles each shrinks
    to its share.

    Source: Liao, Wang, Wen, Zheng, Wang, He, Lyu, Jiang, Zou, Fu, Ren, Zhang, Hu, "Are We Using the Right Benchmark: An
    Evaluation Framework for Visual Token Compression Methods", ACL 2026 (arXiv:2510.07143). Departures: any size, not
    integer factors; no JPEG compression in between.
    """

    source: ClassVar[str] = "Liao et al."
    venue: ClassVar[str] = "ACL"
    year: ClassVar[int | None] = 2026

    @property
    def adaptive(self) -> bool:
        """Whether the count adapts: some budgets have no grid of exactly that size."""
        return True

    def cuts(self, budget: int, n: int, shape: ModelShape) -> tuple[Cut, ...]:
        """Cut nowhere: fewer tokens arrive."""
        del budget, n, shape
        return ()

    def target_grid(self, budget: int, grid: Grid, shape: ModelShape) -> tuple[int, int]:
        """Choose height and width, in tokens, of each tile of an image that would have `grid` at full size."""
        if not grid.tiled:
            raise Unsupported(f"Downsample shrinks tiles, which {shape.family} makes a picture of another size of")
        tokens = share(budget, grid.tiles)

        def merit(size: tuple[int, int]) -> tuple[bool, int, float, int]:
            height, width = size
            sides = (height * grid.width, width * grid.height)
            stretch = max(sides) / min(sides)
            return stretch <= 2.25, height * width, -stretch, -height

        return max(((h, min(grid.width, tokens // h)) for h in range(1, min(grid.height, tokens) + 1)), key=merit)
