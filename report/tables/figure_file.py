"""A matplotlib figure as the bytes of a file, the same ones each time."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_DATELESS = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
_SETTINGS: dict[Any, Any] = {
    "pdf.fonttype": 42,  # TrueType: publishers refuse type 3 fonts
    "svg.hashsalt": "vtpbench",
}


def figure_file(figure: Figure, format_name: str) -> bytes:
    """Write a figure as png, svg or pdf."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(stream, format=format_name, metadata=_DATELESS[format_name])
    return stream.getvalue()
