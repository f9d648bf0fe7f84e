"""Text of a known size: broken into lines that fit a width, measured before anything is drawn."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cache

from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font

POINTS = 72
"""Per inch."""
LEADING = 1.35
"""Height of a line, as a multiple of the font's size."""
SQUARE = "\u25a1"
"""Drawn for a character that the font lacks."""


@dataclass(frozen=True)
class Style:
    """Size in points, weight and colour."""

    size: float
    weight: str = "normal"
    colour: str = "black"


@dataclass(frozen=True)
class Paragraph:
    """A text broken into lines of one style."""

    lines: tuple[str, ...]
    style: Style

    @property
    def height(self) -> float:
        """Height of all lines, inches."""
        return len(self.lines) * LEADING * self.style.size / POINTS

    def draw(self, figure: Figure, x: float, y: float) -> None:
        """Write on a figure; `x` and `y` are the upper left corner, in inches from that of the figure."""
        width, height = figure.get_size_inches()
        for number, line in enumerate(self.lines):
            top = y + number * LEADING * self.style.size / POINTS
            figure.text(
                x / width,
                1 - top / height,
                line,
                va="top",
                fontsize=self.style.size,
                fontweight=self.style.weight,
                color=self.style.colour,
                parse_math=False,  # answers may contain dollars
            )


def wrap(text: str, style: Style, width: float) -> Paragraph:
    """Break a text into lines of at most `width` inches; a word that is longer is broken too.

    Characters that the font lacks, as control characters, become empty squares.
    """
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in map(_drawable, paragraph.split()):
            longer = f"{line} {word}" if line else word
            if not line or _width(longer, style) <= width:
                line = longer
            else:
                lines.append(line)
                line = word
            while _width(line, style) > width and len(line) > 1:
                fitting = _fitting(line, style, width)
                lines.append(line[:fitting])
                line = line[fitting:]
        lines.append(line)
    return Paragraph(tuple(lines), style)


def _fitting(text: str, style: Style, width: float) -> int:
    """Most characters of a text that fit into a width, at least one."""
    return max(1, bisect_right(range(len(text)), width, key=lambda n: _width(text[:n], style)) - 1)


def _drawable(word: str) -> str:
    return "".join(c if c.isprintable() and _font().get_char_index(ord(c)) else SQUARE for c in word)


def _width(text: str, style: Style) -> float:
    """In inches, as it will be drawn."""
    font = FontProperties(size=style.size, weight=style.weight)
    return float(_renderer().get_text_width_height_descent(text, font, False)[0]) / POINTS


@cache
def _font() -> FT2Font:
    return get_font(findfont(FontProperties()))


@cache
def _renderer() -> RendererAgg:
    renderer: RendererAgg = FigureCanvasAgg(Figure(dpi=POINTS)).get_renderer()
    return renderer
