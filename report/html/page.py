"""The report as one HTML file: it works offline, loads nothing, and shows everything that comes from data as text."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from vtpbench.harness.records.efficiency import EfficiencyRecord
from vtpbench.report.efficiency.throughput import throughputs
from vtpbench.report.html.compare import comparisons
from vtpbench.report.html.costs import Profile, profiles
from vtpbench.report.html.kept import EmbeddedPictures, ReadPicture
from vtpbench.report.html.samples import browser, per_cell
from vtpbench.report.html.speed import speed_section
from vtpbench.report.html.throughput import throughput_section
from vtpbench.report.html.view import Section, section
from vtpbench.report.tables.table import Table

if TYPE_CHECKING:
    from vtpbench.report.stats.resampled import Samples

SCRIPTS = (
    "core.js",
    "table.js",
    "chart_layout.js",
    "chart.js",
    "accuracy_chart.js",
    "time_chart.js",
    "batch_chart.js",
    "gallery.js",
    "samples.js",
    "compare.js",
    "start.js",
)
"""Parts of the one script, in order."""
_HARMLESS = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def html(
    tables: Sequence[Table],
    samples: Samples = lambda record: None,
    pictures: ReadPicture = lambda name: None,
    efficiency: Sequence[EfficiencyRecord] = (),
    accuracy: Sequence[Table] | None = None,
) -> str:
    """Write the page.

    Parameters
    ----------
    tables : of accuracy
    samples : gives the per-sample table of a record, or None where there is none
    pictures : gives a picture that such a table names, or None where there is none
    efficiency : what was profiled, of the same models or of others
    accuracy : tables whose averages stand beside it; None = `tables`

    """
    style, script = _asset("page.css"), "\n".join(_asset(name) for name in SCRIPTS)
    measured, gallery = profiles(efficiency, tables if accuracy is None else accuracy), EmbeddedPictures(pictures)
    sections = [section(table, f"t{number}", measured) for number, table in enumerate(tables, 1)]
    limit = per_cell(tables)
    embedded = [embed(_data(part, browser(part, samples, limit, gallery), comparisons(part, samples))) for part in sections]
    speeds = [speed_section(one, f"e{number}", _numbers(one, sections)) for number, one in enumerate(measured, 1)]
    known = {number: label for part in speeds for number, label in part.pruners}
    numbers = {label: number for number, label in known.items()}
    batches = throughputs([one.table for one in measured])
    speeds += [throughput_section(one, f"b{number}", numbers) for number, one in enumerate(batches, 1)]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_asset("page.html.jinja")).render(
        parts=list(zip(sections, embedded, strict=True)),
        speeds=[(part, embed({"choices": part.choices, "points": part.points})) for part in speeds],
        gallery=embed(gallery.data()) if gallery.data()["places"] else None,
        policy=_policy(style, script),
        style=Markup(style),  # these two are ours, not data
        script=Markup(script),
    )
    return f"{page}\n"


def _numbers(profile: Profile, sections: Sequence[Section]) -> dict[str, int]:
    """Numbers of the pruners, by label, in the first section that shows the profiled model."""
    lines = ((part, line) for part in sections for group in part.groups for line in group.lines)
    part = next((part for part, line in lines if profile.row(line.row)), None)
    return {} if part is None else {label: number for number, label in part.pruners}


def embed(value: Any) -> Markup:
    """Write JSON that no HTML parser can take for the end of its `<script>`, for a comment or for a tag."""
    return Markup(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_HARMLESS))


def _data(part: Section, samples: dict[str, Any], compared: dict[str, Any]) -> dict[str, Any]:
    return {"axes": part.axes, "points": part.points, "samples": samples, "compared": compared}


def _policy(style: str, script: str) -> str:
    """Content security policy: this very style and script, nothing else, and no markup made of strings."""
    hashes = (b64encode(sha256(text.encode()).digest()).decode() for text in (style, script))
    style_hash, script_hash = (f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; style-src {style_hash}; script-src {script_hash}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _asset(name: str) -> str:
    """Read a file beside this one; without the last newline, so that what is hashed is what stands between the tags."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8").rstrip("\n")
