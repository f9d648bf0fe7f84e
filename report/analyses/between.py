"""Two rows against each other: their paired difference, and the questions that one has right and the other wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from vtpbench.harness.records.record import Record
from vtpbench.pruners.errors import UserError
from vtpbench.report.analyses.columns import by_category, is_right
from vtpbench.report.analyses.row_names import find_rows, measured_rows, row_key, row_name
from vtpbench.report.tables.conventions import REPLICATES
from vtpbench.report.tables.rounding import average as mean_of
from vtpbench.report.tables.settings import groups, is_vanilla
from vtpbench.report.tables.table import Interval, Table, TableEntry, TableRow, build_tables

if TYPE_CHECKING:
    from vtpbench.report.stats.draws import Draws
    from vtpbench.report.stats.resampled import Samples

AVG = "Avg"
Kind = Literal["broken", "mended"]


@dataclass(frozen=True)
class Disagreement:
    """One question that one row has right and the other wrong."""

    kind: Kind
    """`broken` = the first is wrong, `mended` = the second."""
    benchmark: str
    seed: int
    """Of the first row."""
    one: dict[str, Any]
    """Row of its per-sample table."""
    other: dict[str, Any]


@dataclass(frozen=True)
class PairedDifference:
    """Two rows on one benchmark, on one of its categories, or by their averages."""

    benchmark: str
    category: str = ""
    one: float | None = None
    """Score; of `AVG` the mean relative accuracy, per cent."""
    other: float | None = None
    difference: float | None = None
    """Of the relative accuracies, in points of vanilla's 100."""
    interval: Interval | None = None
    """Its 95 % interval."""
    p_value: float | None = None
    """Of `the difference is 0`; for this comparison alone."""
    broken: int = 0
    mended: int = 0
    n: int = 0
    """Questions that both answered; with several seeds those of each."""


@dataclass(frozen=True)
class Between:
    """What two rows of a table differ in."""

    title: str
    names: tuple[str, str]
    benchmarks: tuple[PairedDifference, ...]
    """The last is `AVG`, over the benchmarks that both have."""
    categories: tuple[PairedDifference, ...]
    disagreements: tuple[Disagreement, ...]


def between(tables: Sequence[Table], names: Sequence[str], samples: Samples, replicates: int = REPLICATES) -> tuple[Between, ...]:
    """Compare the first row with the second in every table that has both.

    Raises
    ------
    UserError
        The names are those of one row, or no table has both.

    """
    return tuple(_between(table, one, other, samples, replicates) for table, (one, other) in find_rows(tables, names))


def pairs(one: TableEntry, other: TableEntry) -> list[tuple[Record, Record]]:
    """Pair the records of two rows on a benchmark by their seeds; a seed that the other lacks meets its first."""
    mine, theirs = (sorted((r for r in e.records if r.score is not None), key=lambda r: r.seed) for e in (one, other))
    return [(r, next((t for t in theirs if t.seed == r.seed), theirs[0])) for r in mine] if theirs else []


def disagreements(one: TableEntry, other: TableEntry, samples: Samples) -> tuple[list[Disagreement], int]:
    """List the questions that two rows disagree on, and count those that both answered."""
    found: list[Disagreement] = []
    n = 0
    for record, against in pairs(one, other):
        mine, theirs = _scored(record, samples), _scored(against, samples)
        shared = [sample for sample in mine if sample in theirs]
        n += len(shared)
        for sample in shared:
            now, was = (is_right(rows[sample]["score"], record.benchmark) for rows in (mine, theirs))
            if was != now:
                kind: Kind = "broken" if was else "mended"
                found.append(Disagreement(kind, record.benchmark.label, record.seed, mine[sample], theirs[sample]))
    return found, n


def _between(table: Table, one: TableRow, other: TableRow, samples: Samples, replicates: int) -> Between:
    if one is other:
        raise UserError(f"--between: both names are those of {row_name(one)}; give two rows")
    found = [disagreements(*entries, samples) for entries in zip(one.entries, other.entries, strict=True)]
    benchmarks = _differences(table, one, other, samples, replicates)
    counted = [
        *(_counted(difference, *own) for difference, own in zip(benchmarks, found, strict=False)),
        _counted(benchmarks[-1], [d for own, _ in found for d in own], sum(n for _, n in found)),
    ]
    return Between(
        table.title,
        (row_name(one), row_name(other)),
        tuple(counted),
        tuple(_categories(table, one, other, samples, replicates)),
        tuple(d for own, _ in found for d in own),
    )


def _counted(difference: PairedDifference, found: Sequence[Disagreement], n: int) -> PairedDifference:
    kinds = [d.kind for d in found]
    return replace(difference, broken=kinds.count("broken"), mended=kinds.count("mended"), n=n)


def _differences(table: Table, one: TableRow, other: TableRow, samples: Samples, replicates: int) -> list[PairedDifference]:
    """Compare on each benchmark of a table, and by the averages over those that both have."""
    from vtpbench.report.stats.draws import average, difference, interval, p_value  # scipy, only where it is needed
    from vtpbench.report.stats.resampled import ResampledScores
    from vtpbench.report.stats.sums import NoInterval

    shown = [one, other, *(row for row in measured_rows(table) if any(map(is_vanilla, row.entries[0].records)))]
    records = {r.cell_id: r for row in shown for entry in row.entries for r in entry.records}
    evidence = ResampledScores(records.values(), samples, replicates)
    found: list[PairedDifference] = []
    gaps: list[Draws] = []
    shared = [pair for pair in zip(one.entries, other.entries, strict=True) if None not in (pair[0].relative, pair[1].relative)]
    for label, a, b in zip(table.columns, one.entries, other.entries, strict=True):
        pair = PairedDifference(label, one=a.score, other=b.score, difference=_minus(a.relative, b.relative))
        if pair.difference is not None:
            with suppress(NoInterval):
                gap = difference(*(evidence.relative([r for r in e.records if r.score is not None]) for e in (a, b)))
                pair = replace(pair, interval=interval(gap), p_value=p_value(gap))
                gaps.append(gap)
        found.append(pair)
    means = [mean_of([pair[k].relative for pair in shared])[0] for k in (0, 1)]
    mean = PairedDifference(AVG, one=means[0], other=means[1], difference=_minus(*means))
    if gaps and len(gaps) == len(shared):
        gap = average(gaps)
        mean = replace(mean, interval=interval(gap), p_value=p_value(gap))
    return [*found, mean]


def _categories(table: Table, one: TableRow, other: TableRow, samples: Samples, replicates: int) -> Iterator[PairedDifference]:
    """Compare on each category of each benchmark that has some, and whose scores can be computed of a part of its questions."""
    keys = [row_key(one), row_key(other)]
    shown = [one, other, *(row for row in measured_rows(table) if any(map(is_vanilla, row.entries[0].records)))]
    records = {r.cell_id: r for row in shown for entry in row.entries for r in entry.records}
    for benchmark, column in groups(records.values(), lambda r: r.benchmark.label).items():
        with suppress(UserError):  # it says that there are no categories, or that they cannot be scored
            for part in by_category(column, samples):
                (within,) = build_tables(part.records)
                rows = {row_key(row): row for row in measured_rows(within)}
                own = [rows[key] for key in keys]
                gaps = _differences(within, own[0], own[1], part.samples, replicates)[:-1]
                for gap, a, b in zip(gaps, own[0].entries, own[1].entries, strict=True):
                    named = replace(gap, benchmark=benchmark, category=gap.benchmark)
                    yield _counted(named, *disagreements(a, b, part.samples))


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _scored(record: Record, samples: Samples) -> dict[str, dict[str, Any]]:
    """Rows of a per-sample table that have a score, by sample."""
    table = samples(record)
    return {} if table is None else {row["sample"]: row for row in table[table["score"].notna()].to_dict("records")}
