"""The pages of a site: a leaderboard, every table, every method; they load nothing, and the same records give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from vtpbench.harness.records.efficiency import EfficiencyRecord
from vtpbench.report.efficiency.columns import Amount
from vtpbench.report.html.costs import Profile, profiles
from vtpbench.report.html.document import embed, render
from vtpbench.report.html.kept import EmbeddedPictures, ReadPicture
from vtpbench.report.html.page import accuracy_data, speed_parts
from vtpbench.report.html.samples import per_cell
from vtpbench.report.html.speed import SpeedLine
from vtpbench.report.site.board import board
from vtpbench.report.site.facts import Method
from vtpbench.report.site.site_table import WHERE_FROM, FindOrigin, SiteTable, method_of, slug
from vtpbench.report.tables.footer import READING
from vtpbench.report.tables.layout import clean
from vtpbench.report.tables.table import Table

if TYPE_CHECKING:
    from vtpbench.report.stats.resampled import Samples

KIND, INDEX, SPEED = "leaderboard", "index.html", "speed.html"
TABLES, METHODS = "tables/", "methods/"
"""Folders of the pages of tables and of methods."""
LISTED = (
    ("Method", "ascending"),
    ("Year", "descending"),
    ("Venue", ""),
    ("Acts at", ""),
    ("Sees the question", ""),
    ("Tables", "descending"),
)


@dataclass(frozen=True)
class SiteSources:
    """What pages are made of beside tables.

    Attributes
    ----------
    samples : gives the per-sample table of a record, or None
    pictures : gives a picture that such a table names, or None
    origin : says where a record lies, and what was verified of it
    methods : by the name that records have for them; of one that is not here, records alone tell

    """

    samples: Samples
    pictures: ReadPicture
    origin: FindOrigin
    methods: Mapping[str, Method]


def site(tables: Sequence[Table], efficiency: Sequence[EfficiencyRecord], evidence: SiteSources) -> Iterator[tuple[str, str]]:
    """Give path and text of each page, one after the other.

    Parameters
    ----------
    tables : of accuracy
    efficiency : what was profiled, of the same models or of others
    evidence : what else is known

    """
    measured = profiles(efficiency, tables)
    results: list[SiteTable] = []
    for page, table in _paged(tables).items():
        results.append(SiteTable.of(table, page, measured, results))
    alone = [profile for profile in measured if not any(profile in each.profiles for each in results)]
    methods = _methods(results, evidence.methods)
    yield INDEX, _index(results, methods, alone, evidence)
    for each in results:
        yield TABLES + each.page, _table(each, per_cell(tables), evidence)
    for method in methods:
        yield METHODS + _page(method), _method(method, results)
    if alone:
        speeds = speed_parts(alone, [])
        yield SPEED, render("speed.html.jinja", kind=KIND, home=INDEX, speeds=speeds)


def _paged(tables: Sequence[Table]) -> dict[str, Table]:
    """Name the page of each table after its title; of equal titles the later ones have a number."""
    found: dict[str, Table] = {}
    for table in tables:
        first = f"{slug(table.title)}.html"
        again = (f"{slug(table.title)}-{number}.html" for number in count(2))
        found[first if first not in found else next(page for page in again if page not in found)] = table
    return found


def _page(method: Method) -> str:
    return f"{slug(method.name)}.html"


def _methods(results: Sequence[SiteTable], known: Mapping[str, Method]) -> list[Method]:
    """List the methods that have a row, by title."""
    labels: dict[str, list[str]] = {}
    for line in (line for each in results for _, line in each.lines):
        labels.setdefault(method_of(line.row), []).append(clean(line.row.label))
    found = [_titled(known.get(name, Method(name, clean(name))), own) for name, own in labels.items()]
    return sorted(found, key=lambda method: (method.title.casefold(), method.name))


def _titled(method: Method, labels: Iterable[str]) -> Method:
    """Write a method's name as tables do, where they only write it otherwise: `OC-VTP`, not `oc-vtp`."""
    spelt = next((label for label in sorted(labels) if _letters(label) == _letters(method.name)), method.title)
    return replace(method, title=spelt)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _index(results: Sequence[SiteTable], methods: Sequence[Method], alone: Sequence[Profile], evidence: SiteSources) -> str:
    boards = [(board(each, METHODS, evidence.origin), TABLES + each.page) for each in results]
    reading = {name: text for each in reversed(results) for name, text in each.table.footer if name in READING}
    lines = [_listed(method, number, results) for number, method in enumerate(methods, 1)]
    return render(
        "index.html.jinja",
        kind=KIND,
        boards=boards,
        methods=lines,
        header=LISTED,
        reading=[(name, reading[name]) for name in READING if name in reading],
        speed=SPEED if alone else "",
    )


def _listed(method: Method, number: int, results: Sequence[SiteTable]) -> SpeedLine:
    tables = sum(each.of_method(method.name) is not None for each in results)
    style = next(line.pruner for each in results for _, line in each.lines if method_of(line.row) == method.name)
    words = (method.venue, method.acts_at, method.question)
    year = Amount("" if method.year is None else str(method.year), method.year)
    amounts = (year, *(Amount(clean(text)) for text in words), Amount(str(tables), tables))
    return SpeedLine(f"m{number}", style, clean(method.title), amounts, METHODS + _page(method))


def _table(results: SiteTable, limit: int, evidence: SiteSources) -> str:
    gallery, part = EmbeddedPictures(evidence.pictures), results.linked(f"../{METHODS}")
    data = accuracy_data(part, evidence.samples, limit, gallery)
    return render(
        "results.html.jinja",
        kind=KIND,
        home=f"../{INDEX}",
        part=part,
        data=data,
        header=WHERE_FROM,
        origins=results.origins(evidence.origin),
        speeds=speed_parts(results.profiles, [part]),
        gallery=gallery.embedded(),
    )


def _method(method: Method, results: Sequence[SiteTable]) -> str:
    parts = [(part, each) for each in results if (part := each.of_method(method.name)) is not None]
    return render(
        "method.html.jinja",
        kind=KIND,
        home=f"../{INDEX}",
        method=method,
        parts=[(part, embed({"axes": part.axes, "points": part.points}), f"../{TABLES}{each.page}") for part, each in parts],
    )
