"""Pictures of the vision tokens that pruners keep: one PNG, or a page that holds all that it shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from math import ceil

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vtpbench.report.kept_tokens.panels import DPI, WIDTH, Panel, PanelLayout, aligned
from vtpbench.report.kept_tokens.wrapping import Paragraph, Style, wrap

ACROSS = 6
"""Most panels beside each other."""
MARGIN, GAP = 0.16, 0.16
"""Around everything, and between panels; inches."""
TITLE, FACT, NAME = Style(11, "bold"), Style(8, colour="0.25"), Style(9, "bold")
PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: #222 }}
img {{ max-width: 100%; height: auto }}
table {{ border-collapse: collapse; margin: .6rem 0 2rem }}
td, th {{ border-bottom: 1px solid #ddd; padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top }}
td:last-child {{ white-space: pre-wrap }}
</style></head><body>
<h1>{title}</h1>
{facts}
{strips}
</body></html>
"""
STRIP = """\
<h2>{name}</h2>
<img src="data:image/png;base64,{png}" alt="{summary}">
<table>
{rows}
</table>"""


@dataclass(frozen=True)
class ImageStrip:
    """The panels of one image."""

    name: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class PictureSheet:
    """All that is shown; `facts` are lines below the title."""

    title: str
    facts: tuple[str, ...]
    strips: tuple[ImageStrip, ...]


@dataclass(frozen=True)
class Band:
    """Things that are drawn beside each other, their height and the space before it, inches."""

    items: Sequence[Paragraph | PanelLayout]
    height: float
    before: float = 0.0


def png(sheet: PictureSheet) -> bytes:
    """Draw everything as one picture."""
    return _draw(sheet.strips, sheet.title, _facts(sheet))


def html(sheet: PictureSheet) -> bytes:
    """Write a page with a picture for each image; notes and all other text are text."""
    strips = "\n".join(map(_section, sheet.strips))
    facts = "\n".join(f"<p>{escape(fact)}</p>" for fact in _facts(sheet))
    return PAGE.format(title=escape(sheet.title), facts=facts, strips=strips).encode()


def _section(strip: ImageStrip) -> str:
    silent = ImageStrip("", tuple(replace(panel, note="") if panel.boxed else panel for panel in strip.panels))
    texts = [(panel.title, ", ".join(panel.detail), panel.note) for panel in strip.panels]
    return STRIP.format(
        name=escape(strip.name),
        png=base64.b64encode(_draw([silent], "", ())).decode(),
        summary=escape("; ".join(": ".join(filter(None, row[:2])) for row in texts)),
        rows="\n".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in texts),
    )


def _facts(sheet: PictureSheet) -> tuple[str, ...]:
    """Facts, and what the marks mean that occur."""
    panels = [panel for strip in sheet.strips for panel in strip.panels if panel.boxed is not None]
    marks = {
        "bright: kept; faded: dropped": any(p.kept is not None and not p.coloured for p in panels),
        "pink box: a row into which others were merged, at its place; pink dot: merged": any(len(p.places) for p in panels),
        "cells between white lines: averaged into one row": any(p.groups is not None and not p.coloured for p in panels),
        "colours: the slot that attends most, or the merged group; black dot: kept": any(p.coloured for p in panels),
    }
    legend = ".  ".join(text.capitalize() for text, occurs in marks.items() if occurs)
    return (*sheet.facts, f"{legend}.") if legend else sheet.facts


def _draw(strips: Sequence[ImageStrip], title: str, facts: Sequence[str]) -> bytes:
    """Place everything from the top down, then draw it on a figure of that height."""
    across = columns(max(len(strip.panels) for strip in strips))
    width = across * WIDTH + (across - 1) * GAP
    bands = [Band((text,), text.height) for text in (wrap(title, TITLE, width), *(wrap(fact, FACT, width) for fact in facts))]
    for strip in strips:
        if len(strips) > 1:
            name = wrap(strip.name, NAME, width)
            bands.append(Band((name,), name.height, GAP))
        rows = [aligned(strip.panels[start : start + across]) for start in range(0, len(strip.panels), across)]
        bands += [Band(row, max(panel.height for panel in row), GAP) for row in rows]
    height = sum(band.before + band.height for band in bands)
    figure, y = Figure(figsize=(width + 2 * MARGIN, height + 2 * MARGIN), dpi=DPI, facecolor="white"), MARGIN
    for band in bands:
        y += band.before
        for number, item in enumerate(band.items):
            item.draw(figure, MARGIN + number * (WIDTH + GAP), y)
        y += band.height
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, pil_kwargs={"optimize": True})
    return stream.getvalue()


def columns(panels: int) -> int:
    """Choose how many panels stand beside each other, so that the last row is as full as can be."""
    return ceil(panels / ceil(panels / ACROSS))
