"""The report as one HTML file: it works offline, loads nothing, and shows everything that comes from data as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from vtpbench.harness.records.efficiency import EfficiencyRecord
from vtpbench.report.efficiency.throughput import throughputs
from vtpbench.report.html.compare import comparisons
from vtpbench.report.html.costs import Profile, profiles
from vtpbench.report.html.document import embed, render
from vtpbench.report.html.kept import EmbeddedPictures, ReadPicture
from vtpbench.report.html.samples import browser, per_cell
from vtpbench.report.html.speed import SpeedSection, speed_section
from vtpbench.report.html.throughput import throughput_section
from vtpbench.report.html.view import Section, section
from vtpbench.report.tables.table import Table

if TYPE_CHECKING:
    from vtpbench.report.stats.resampled import Samples


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
    measured, gallery = profiles(efficiency, tables if accuracy is None else accuracy), EmbeddedPictures(pictures)
    sections = [section(table, f"t{number}", measured) for number, table in enumerate(tables, 1)]
    limit = per_cell(tables)
    return render(
        "page.html.jinja",
        kind="report",
        parts=[(part, accuracy_data(part, samples, limit, gallery)) for part in sections],
        speeds=speed_parts(measured, sections),
        gallery=gallery.embedded(),
    )


def accuracy_data(part: Section, samples: Samples, limit: int, gallery: EmbeddedPictures) -> Markup:
    """Embed what the script of a table shows: its chart, at most `limit` samples of a cell, and comparisons of its rows."""
    shown = {"samples": browser(part, samples, limit, gallery), "compared": comparisons(part, samples)}
    return embed({"axes": part.axes, "points": part.points, **shown})


def speed_parts(measured: Sequence[Profile], sections: Sequence[Section]) -> list[tuple[SpeedSection, Markup]]:
    """Make the parts of what was profiled, with the colours that its pruners have in `sections`."""
    speeds = [speed_section(one, f"e{number}", _numbers(one, sections)) for number, one in enumerate(measured, 1)]
    numbers = {label: number for part in speeds for number, label in part.pruners}
    batches = throughputs([one.table for one in measured])
    speeds += [throughput_section(one, f"b{number}", numbers) for number, one in enumerate(batches, 1)]
    return [(part, embed({"choices": part.choices, "points": part.points})) for part in speeds]


def _numbers(profile: Profile, sections: Sequence[Section]) -> dict[str, int]:
    """Numbers of the pruners, by label, in the first section that shows the profiled model."""
    lines = ((part, line) for part in sections for group in part.groups for line in group.lines)
    part = next((part for part, line in lines if profile.row(line.row)), None)
    return {} if part is None else {label: number for number, label in part.pruners}
