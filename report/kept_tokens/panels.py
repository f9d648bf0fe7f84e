"""One panel of a picture of kept tokens: the shaded image with its marks, a title above and a note below."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image as Pillow

from vtpbench.report.kept_tokens.wrapping import POINTS, Paragraph, Style, wrap

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float64]
Ids = NDArray[np.int64]

DPI = 120
WIDTH = 2.0
"""Of a panel, inches."""
TALLEST = 1.5
"""Height of an image, as a multiple of the panel's width; a taller one is made narrower."""
SPACE = 0.05
"""Between an image and its text, inches."""
MARK = "#ff1f8f"
DARK = 90
"""Mean brightness, 0-255, below which dropped tokens fade towards white: what is kept stands out on dark images too."""
FADED = 0.45
"""Share of an image's own brightness that a dropped token keeps."""
TITLE, DETAIL, NOTE = Style(8.5, "bold"), Style(7.5, colour="0.3"), Style(8)


@dataclass(frozen=True)
class TokenBoxes:
    """An image with the places of its vision tokens.

    Attributes
    ----------
    pixels : (height, width, 3) uint8
    boxes : (n, 4) left, top, right, bottom of each token as fractions of width and height; without area where a token
        shows nothing of the image

    """

    pixels: Pixels
    boxes: Boxes


def _none() -> Ids:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Panel:
    """What is shown of one pruner.

    Attributes
    ----------
    title, detail : above the image; a line per item, broken where it is too long
    boxed : the image, None where there is nothing to draw
    kept : tokens that stay; None = nothing is marked
    places : tokens whose place a merged row takes
    members : tokens that were merged into such a row
    groups : (n,) group of each token, -1 = none; lines divide them
    coloured : whether groups are filled with a colour each
    note : below the image

    """

    title: str
    detail: tuple[str, ...] = ()
    boxed: TokenBoxes | None = None
    kept: Ids | None = None
    places: Ids = field(default_factory=_none)
    members: Ids = field(default_factory=_none)
    groups: Ids | None = None
    coloured: bool = False
    note: str = ""


@dataclass(frozen=True)
class PanelLayout:
    """A panel with its text broken into lines; `above` and `middle` are heights that it shares with its neighbours, inches."""

    panel: Panel
    above: float = 0.0
    middle: float = 0.0

    @cached_property
    def head(self) -> tuple[Paragraph, ...]:
        """Text above the image."""
        return wrap(self.panel.title, TITLE, WIDTH), *(wrap(line, DETAIL, WIDTH) for line in self.panel.detail)

    @cached_property
    def foot(self) -> Paragraph:
        """Text below it."""
        return wrap(self.panel.note, NOTE, WIDTH)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the image, inches."""
        if self.panel.boxed is None:
            return WIDTH, 0.0
        height, width = self.panel.boxed.pixels.shape[:2]
        scale = min(WIDTH / width, TALLEST * WIDTH / height)
        return scale * width, scale * height

    @property
    def heights(self) -> tuple[float, float]:
        """Of the text above and of the image, inches."""
        return sum(part.height for part in self.head) + SPACE, self.size[1]

    @property
    def height(self) -> float:
        """Of everything, inches; where there is no image, what is below is the reason, and stands right behind the head."""
        above = self.heights[0] if self.panel.boxed is None else self.above + self.middle + SPACE
        return above + self.foot.height

    def draw(self, figure: Figure, x: float, y: float) -> None:
        """Draw on a figure; `x` and `y` are the upper left corner, in inches from that of the figure."""
        top = y
        for part in self.head:
            part.draw(figure, x, top)
            top += part.height
        self.foot.draw(figure, x, y + self.height - self.foot.height)
        if self.panel.boxed is None:
            return
        (across, down), (width, height) = figure.get_size_inches(), self.size
        place = (x / across, 1 - (y + self.above + height) / down, width / across, height / down)
        axes = figure.add_axes(place, xlim=(0, 1), ylim=(1, 0))
        axes.set_axis_off()
        shaded = shade(self.panel, self.panel.boxed, (round(DPI * width), round(DPI * height)))
        axes.imshow(shaded, extent=(0, 1, 1, 0), aspect="auto")
        _mark(axes, self.panel, self.panel.boxed, width)


def aligned(panels: Sequence[Panel]) -> list[PanelLayout]:
    """Lay out panels that stand beside each other: their images begin at the same height, and so do their notes."""
    layouts = [PanelLayout(panel) for panel in panels]
    above, middle = (max(layout.heights[n] for layout in layouts) for n in (0, 1))
    return [PanelLayout(panel, above, middle) for panel in panels]


def shade(panel: Panel, boxed: TokenBoxes, size: tuple[int, int]) -> Pixels:
    """Fade what is not kept, or fill groups with colours; `size` is (width, height) of the result."""
    image = np.asarray(Pillow.fromarray(boxed.pixels).resize(size, Pillow.Resampling.BICUBIC), dtype=np.float64)
    grey = image.mean(axis=2, keepdims=True)
    if panel.coloured and panel.groups is not None:
        return _coloured(grey, boxed.boxes, panel.groups)
    if panel.kept is None:
        return image.astype(np.uint8)
    faded = FADED * grey + (1 - FADED) * (255 if grey.mean() < DARK else 0)
    shown = np.full_like(image, 255)  # what no token shows, the model does not see
    for source, boxes in ((faded, boxed.boxes), (image, boxed.boxes[panel.kept])):
        for rows, columns in _slices(boxes, size):
            shown[rows, columns] = source[rows, columns]
    return shown.astype(np.uint8)


def _coloured(grey: NDArray[np.float64], boxes: Boxes, groups: Ids) -> Pixels:
    shown = np.full((*grey.shape[:2], 3), 255.0)
    for token, (rows, columns) in enumerate(_slices(boxes, (grey.shape[1], grey.shape[0]))):
        if groups[token] >= 0:
            hue = groups[token] * 0.618034 % 1  # steps of the golden ratio: neighbouring numbers differ most
            colour = 255 * np.array(colorsys.hsv_to_rgb(hue, 0.75, 1.0))
            shown[rows, columns] = colour * (0.35 + 0.65 * grey[rows, columns] / 255)
    return shown.astype(np.uint8)


def _slices(boxes: Boxes, size: tuple[int, int]) -> list[tuple[slice, slice]]:
    width, height = size
    edges = np.rint(boxes * (width, height, width, height)).astype(int)
    return [(slice(top, bottom), slice(left, right)) for left, top, right, bottom in edges]


def _mark(axes: Axes, panel: Panel, boxed: TokenBoxes, width: float) -> None:
    """Draw outlines and dots, in proportion to the tokens; `width` of the image in inches."""
    boxes = boxed.boxes
    if not len(boxes):
        return
    side = POINTS * width * float((boxes[:, 2] - boxes[:, 0]).max())
    if panel.groups is not None:
        _lines(axes, _borders(boxes, panel.groups), "white", 0.07 * side)
    elif panel.kept is not None and len(panel.kept):
        _lines(axes, [line for box in boxes[panel.kept] for line in _sides(box)], "white", 0.035 * side)
    if panel.coloured and panel.kept is not None:
        _dots(axes, boxes[panel.kept], "black", 0.4 * side)
    _dots(axes, boxes[np.setdiff1d(panel.members, panel.places)], MARK, 0.3 * side)
    _lines(axes, [line for box in boxes[panel.places] for line in _sides(box)], MARK, 0.11 * side)


def _lines(axes: Axes, lines: list[tuple[tuple[float, float], tuple[float, float]]], colour: str, width: float) -> None:
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, clip_on=False), autolim=False)


def _dots(axes: Axes, boxes: Boxes, colour: str, size: float) -> None:
    seen = boxes[_areas(boxes) > 0]
    axes.plot(seen[:, ::2].mean(axis=1), seen[:, 1::2].mean(axis=1), ".", color=colour, markersize=size, markeredgewidth=0)


def _areas(boxes: Boxes) -> NDArray[np.float64]:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def _sides(box: NDArray[np.float64]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    left, top, right, bottom = map(float, box)
    if left == right or top == bottom:
        return []
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return list(zip(corners, corners[1:] + corners[:1], strict=True))


def _borders(boxes: Boxes, groups: Ids) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Sides that a token does not share with another of its group."""
    owners: dict[tuple[tuple[float, float], ...], list[int]] = {}
    for box, group in zip(np.round(boxes, 6), groups, strict=True):
        for side in _sides(box):
            owners.setdefault(tuple(sorted(side)), []).append(int(group))
    return [(side[0], side[1]) for side, own in owners.items() if len(own) == 1 or own[0] != own[1]]
