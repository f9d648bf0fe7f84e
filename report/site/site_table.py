"""One table of a site: its page, its rows with links, and where these rows come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from vtpbench.harness.records.record import Record
from vtpbench.report.efficiency.columns import Amount
from vtpbench.report.html.costs import Profile
from vtpbench.report.html.speed import SpeedLine
from vtpbench.report.html.view import Line, Section, section
from vtpbench.report.site.facts import CHECKS, Check, Origin
from vtpbench.report.tables.layout import clean
from vtpbench.report.tables.table import Table, TableRow

WHERE_FROM = (
    ("Pruner", "ascending"),
    ("Budget", ""),
    ("Verified", ""),
    ("Folder", ""),
    ("Device", ""),
    ("Versions", ""),
    ("Measured", ""),
)
"""Columns of the rows' provenance, and how a first click sorts them."""
SHOWN_VERSIONS = ("vtpbench", "lmms-eval", "torch", "transformers")
"""The others stand below the table."""
FindOrigin = Callable[[Record], Origin]


def slug(name: str) -> str:
    """Name a file after any text: letters, digits and hyphens, and a hash that tells two names apart."""
    plain = re.sub("[^a-z0-9]+", "-", name.casefold()).strip("-")[:50].strip("-")
    return f"{plain or 'x'}-{sha256(name.encode(errors='replace')).hexdigest()[:8]}"


def method_of(row: TableRow) -> str:
    """Name the pruner of a row, wherever its file lies; a published row has a label alone."""
    return next((record.pruner.placeless for entry in row.entries for record in entry.records), row.label.casefold())


def records_of_row(row: TableRow) -> list[Record]:
    """List the records behind a row."""
    return [record for entry in row.entries for record in entry.records]


@dataclass(frozen=True)
class SiteTable:
    """A table and what was profiled of its rows."""

    table: Table
    page: str
    """Name of its file."""
    whole: Section
    profiles: tuple[Profile, ...]

    @classmethod
    def of(cls, table: Table, page: str, measured: Sequence[Profile], others: Sequence[SiteTable]) -> SiteTable:
        """Prepare a table; `measured` may know what its rows cost, and pruners look as they do in `others`."""
        rows = [row for block in table.blocks for row in block.rows]
        fitting = tuple(profile for profile in measured if any(profile.row(row) for row in rows))
        known = {line.row.label: line.pruner for other in reversed(others) for _, line in other.lines if line.pruner >= 0}
        return cls(table, page, section(table, f"t{len(others) + 1}", fitting, known), fitting)

    @property
    def lines(self) -> list[tuple[str, Line]]:
        """Rows, each behind the title of its budget."""
        return [(group.title, line) for group in self.whole.groups for line in group.lines]

    @property
    def vanilla(self) -> list[Record]:
        """Records that scores are divided by."""
        return [record for _, line in self.lines if line.pruner < 0 for record in records_of_row(line.row)]

    def linked(self, folder: str) -> Section:
        """Lead from the names of pruners to their pages below a folder."""

        def link(line: Line) -> Line:
            return replace(line, link=f"{folder}{slug(method_of(line.row))}.html")

        return with_lines(self.whole, lambda lines: map(link, lines))

    def of_method(self, name: str) -> Section | None:
        """Leave the rows of one pruner, and vanilla's; None where it has none."""
        own = {line.id for _, line in self.lines if method_of(line.row) == name}
        if not own:
            return None
        shown = own | {line.id for _, line in self.lines if line.pruner < 0}
        part = with_lines(self.whole, lambda lines: [line for line in lines if line.id in shown])
        numbers = {line.pruner for group in part.groups for line in group.lines}
        return replace(
            part,
            pruners=tuple(each for each in part.pruners if each[0] in numbers),
            points=[point for point in part.points if point["row"] in shown],
        )

    def origins(self, origin: FindOrigin) -> list[SpeedLine]:
        """Say of each row where it comes from."""
        return [_origin(title, line, self.vanilla, origin) for title, line in self.lines]


def with_lines(part: Section, change: Callable[[Sequence[Line]], Iterable[Line]]) -> Section:
    """Change the lines of each group; a group without lines goes."""
    groups = (replace(group, lines=tuple(change(group.lines))) for group in part.groups)
    return replace(part, groups=tuple(group for group in groups if group.lines))


def check_of(row: TableRow, vanilla: Sequence[Record], origin: FindOrigin) -> Check | None:
    """Say what was found of a row: the worst of its cells; None where nobody looked at all of them.

    A fault in those of the table's `vanilla` cells that its scores are divided by is a fault of the row.
    """
    own = records_of_row(row)
    divided = {record.benchmark.label for record in own if record.score is not None}
    denominators = [origin(record).check for record in vanilla if record.benchmark.label in divided]
    found = [*(origin(record).check for record in own), *(check for check in denominators if check == "faulty")]
    worst_first = [check for check in CHECKS if check in found]
    return worst_first[0] if worst_first and None not in found else None


def _origin(title: str, line: Line, vanilla: Sequence[Record], origin: FindOrigin) -> SpeedLine:
    records = records_of_row(line.row)
    check = check_of(line.row, vanilla, origin)
    used = [record.environment.versions for record in records]
    days = sorted({record.created[:10] for record in records})
    texts = (
        title,
        "not checked" if check is None else CHECKS[check],
        _listed(origin(record).folder for record in records),
        _listed(record.environment.device for record in records),
        _listed(f"{name} {versions[name]}" for versions in used for name in SHOWN_VERSIONS if name in versions),
        " to ".join(dict.fromkeys([*days[:1], *days[-1:]])),
    )
    label = line.shown[0].place.text
    return SpeedLine(f"{line.id}-from", line.pruner, label, tuple(Amount(text) for text in texts))


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(map(clean, values)))
