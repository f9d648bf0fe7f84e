"""Decisions about rows, laid out for reading and as rows for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vtpbench.report.analyses.decisions import DecidedRow, DecidedTable
from vtpbench.report.formats.sheet import Sheet, SheetTable, Value
from vtpbench.report.stats.smallest import DISCORDANCE, POWER
from vtpbench.report.tables.layout import NONE
from vtpbench.report.tables.rounding import half_up, paper

FIELDS = (
    *("table", "block", "label", "average", "low", "high", "n", "margin", "decision", "may_be_best"),
    *("without", "average_without", "rank", "rank_without", "smallest_difference"),
)


def decisions_sheet(found: Sequence[DecidedTable]) -> Sheet:
    """Lay decisions out; scripts get a row for each pruner and budget, then one for each benchmark left out (`without`)."""
    grids = [grid for one in found for grid in (_decisions(one), *_without(one))]
    return Sheet(tuple(grids), FIELDS, tuple(row for one in found for row in _values(one)))


def _decisions(found: DecidedTable) -> SheetTable:
    margin = f"{found.margin:g} %"
    lines: list[tuple[str, ...]] = []
    for title, rows in found.blocks:
        lines += [(title,), *(_line(row, margin) for row in rows)]
    facts = [
        (
            "Against vanilla",
            f"within: less than {margin} below vanilla, as the whole 95 % interval is; below: more than that, as a whole; "
            "each is wrong in 2.5 % of cases at most, row by row; undecided: these questions do not tell, or are so few that "
            "such a loss might show in none of them",
        ),
        (
            "May be best",
            "the rows so marked hold the truly best of their block with 95 % probability, however many rows there are",
        ),
        *_smallest(found),
    ]
    if reasons := dict.fromkeys(why for _, rows in found.blocks for row in rows for why in row.why_not):
        facts.append(("No decision", "; ".join(reasons)))
    columns = ("Pruner", "Avg", "95 % interval", "Against vanilla", "May be best", "n")
    return SheetTable(f"{found.table.title} · decisions at a margin of {margin}", columns, tuple(lines), tuple(facts))


def _smallest(found: DecidedTable) -> Iterator[tuple[str, str]]:
    apart, power = f"{100 * DISCORDANCE:.0f} %", f"{100 * POWER:.0f} %"
    if found.smallest is not None:
        gap = f"{half_up(found.smallest, 1)} %"
        why = f"if one is right and the other wrong on {apart} of the questions (assumed), all independent"
        yield "Smallest difference", f"two rows that differ by {gap} in Avg are told apart in {power} of cases, {why}"
    elif found.questions is not None:
        why = f"one is right and the other wrong on {apart} of them (assumed), whatever the difference"
        yield (
            "Smallest difference",
            f"{found.questions} questions are too few to tell two rows apart in {power} of cases, where {why}",
        )


def _line(decided: DecidedRow, margin: str) -> tuple[str, ...]:
    words = {"within": f"within {margin}", "below": "below", "undecided": "undecided", None: NONE}
    best = {True: "yes", False: "no", None: NONE}
    interval = NONE if decided.interval is None else f"{' to '.join(map(paper, decided.interval))} %"
    row = decided.row
    return (row.label, _per_cent(row.average), interval, words[decided.decision], best[decided.may_be_best], str(row.n))


def _without(found: DecidedTable) -> Iterator[SheetTable]:
    """Print averages without each column, and the row's rank in its block."""
    columns = found.table.columns
    if len(columns) < 2:
        return
    lines: list[tuple[str, ...]] = []
    for title, rows in found.blocks:
        lines.append((title,))
        for decided in rows:
            whole = _ranked(decided.row.average, [other.row.average for other in rows])
            others = (_ranked(decided.without[i], [other.without[i] for other in rows]) for i in range(len(columns)))
            lines.append((decided.row.label, whole, *others))
    names = ("Pruner", "Avg", *(f"without {name}" for name in columns))
    facts = (("Avg", "and in brackets its rank in the block; a row that one benchmark carries or costs its place is seen here"),)
    yield SheetTable(f"{found.table.title} · Avg without each benchmark", names, tuple(lines), facts)


def _per_cent(value: float | None) -> str:
    return NONE if value is None else f"{paper(value)} %"


def _ranked(value: float | None, among: Sequence[float | None]) -> str:
    return NONE if value is None else f"{_per_cent(value)} ({_rank(value, among)})"


def _rank(value: float | None, among: Sequence[float | None]) -> int | None:
    return None if value is None else 1 + sum(other > value for other in among if other is not None)


def _values(found: DecidedTable) -> Iterator[dict[str, Value]]:
    empty: dict[str, Value] = dict.fromkeys(FIELDS)
    for title, rows in found.blocks:
        for decided in rows:
            row, (low, high) = decided.row, decided.interval or (None, None)
            common = {**empty, "table": found.table.title, "block": title, "label": row.label, "average": row.average, "n": row.n}
            rank = _rank(row.average, [other.row.average for other in rows])
            best = None if decided.may_be_best is None else str(decided.may_be_best).lower()
            verdict = {"margin": found.margin, "decision": decided.decision, "may_be_best": best}
            yield {**common, **verdict, "low": low, "high": high, "rank": rank, "smallest_difference": found.smallest}
            for i, name in enumerate(found.table.columns):
                mean, others = decided.without[i], [other.without[i] for other in rows]
                yield {**common, "rank": rank, "without": name, "average_without": mean, "rank_without": _rank(mean, others)}
